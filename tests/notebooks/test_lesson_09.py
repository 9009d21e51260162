"""Lesson 09 where something is missing: Triton, or the measured results."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.test_stored import shown
from transnormer_edu.notebook_run import execute

ROOT = Path(__file__).parents[2]
LESSON = ROOT / "notebooks" / "09_backward_and_speed.ipynb"
RESULTS = "kernels/benchmarks/results"


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """A copy of the lesson in a folder of its own, where `import triton` fails."""
    shadow = tmp_path / "shadow" / "triton"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise ImportError('there is no Triton here')")
    roots = map(str, (shadow.parent, ROOT, ROOT / "kernels"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))
    (tmp_path / "notebooks").mkdir()
    return Path(shutil.copy(LESSON, tmp_path / "notebooks"))


def test_without_triton_pytorch_says_the_same(lesson):
    shutil.copytree(ROOT / RESULTS, lesson.parents[1] / RESULTS)
    run = execute(lesson)
    assert run.failure is None
    committed = nbformat.read(LESSON, as_version=4).cells
    said = [cell for cell in run.notebook.cells if "No Triton here" in str(shown(cell))]
    assert len(said) == 1
    for cell, stored in zip(run.notebook.cells, committed, strict=True):
        if cell not in said and cell.cell_type == "code":
            assert text_of(cell) == text_of(stored), cell.source


def test_without_the_results_the_lesson_says_where_they_belong(lesson):
    failure = execute(lesson).failure
    assert failure.what.startswith("FileNotFoundError: kernels/benchmarks/results/h100.json")
    assert failure.what.endswith("open this lesson inside the project's repository")


def text_of(cell):
    """What was said, without pictures, whose bytes differ with fonts."""
    return [(text, data.get("text/plain")) for text, data, _ in shown(cell)]
