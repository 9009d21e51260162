"""Where Triton cannot be installed, its lessons run and are as complete as elsewhere."""

import shutil

import nbformat
import pytest

from tests.notebooks.conftest import ROOT
from tests.notebooks.test_stored import shown
from transnormer_edu.notebook_run import execute

RESULTS = "kernels/benchmarks/results"


def text_of(cell):
    """What was said, without pictures, whose bytes differ with fonts."""
    return [(text, data.get("text/plain")) for text, data, _ in shown(cell)]


# Lesson 08 shows its stored pictures again; lesson 09 draws its own anew.
@pytest.mark.parametrize(
    "name, needs, seen",
    [("08_kernel", [], shown), ("09_backward_and_speed", [RESULTS], text_of)],
)
def test_a_lesson_is_complete_without_triton(without_triton, name, needs, seen):
    lesson = without_triton(name)
    for folder in needs:
        shutil.copytree(ROOT / folder, lesson.parents[1] / folder)
    run = execute(lesson)
    assert run.failure is None
    committed = nbformat.read(ROOT / "notebooks" / lesson.name, as_version=4).cells
    said = [cell for cell in run.notebook.cells if "No Triton here" in str(shown(cell))]
    assert len(said) == 1
    for cell, stored in zip(run.notebook.cells, committed, strict=True):
        if cell not in said and cell.cell_type == "code":
            assert seen(cell) == seen(stored), cell.source


def test_without_the_results_lesson_09_says_where_they_belong(without_triton):
    failure = execute(without_triton("09_backward_and_speed")).failure
    assert failure.what.startswith("FileNotFoundError: kernels/benchmarks/results/h100.json")
    assert failure.what.endswith("open this lesson inside the project's repository")
