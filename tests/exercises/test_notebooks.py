"""The notebooks of exercises: derived from the solutions, and nothing of an answer in them."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from transnormer_edu.exercises.catalog import find, lessons, of_lesson, questions
from transnormer_edu.exercises.notebooks import (
    IN_CODE,
    IN_PROSE,
    checks,
    derive,
    sources,
    student_path,
)

ROOT = Path(__file__).parents[2]
SOURCES = sources(ROOT)
by_name = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)


def text_of(path, kind):
    notebook = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == kind)


def test_each_lesson_with_exercises_has_its_notebook():
    assert [path.name for path in SOURCES] == [f"{lesson}_exercises.ipynb" for lesson in lessons()]
    there = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
    assert [path.name for path in there] == [path.name for path in SOURCES]


@by_name
def test_the_students_notebook_is_what_is_derived(source):
    committed = student_path(source).read_text(encoding="utf-8")
    assert committed == derive(source), "call `transnormer-edu exercises derive`"


@by_name
def test_nothing_of_an_answer_is_left(source):
    student = student_path(source)
    notebook = nbformat.read(student, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    left = text_of(student, "code").splitlines()
    gaps = [gap[0] for gap in IN_CODE.finditer(text_of(source, "code"))]
    answers = [line for gap in gaps for line in gap.splitlines() if len(line.strip()) > 1]
    assert answers
    assert not set(answers) & set(left)
    words = text_of(student, "markdown")
    for gap in IN_PROSE.finditer(text_of(source, "markdown")):
        assert not any(line in words for line in gap[0].splitlines()[1:-1] if line)
    assert "SOLUTION" not in student.read_text(encoding="utf-8")
    assert "Rubric" not in words


@by_name
def test_every_exercise_has_its_card_hints_stub_and_check(source):
    own = of_lesson(source.name[:2])
    notebook = nbformat.read(student_path(source), as_version=4)
    assert checks(notebook) == [(exercise.number, exercise.function) for exercise in own]
    words, code = text_of(source, "markdown"), text_of(student_path(source), "code")
    parts = re.split(r"^## ", words, flags=re.M)[1:]
    cards = (*own, *questions(source.name[:2]))
    for card, part in zip(cards, parts, strict=True):
        assert part.startswith(f"{card.number} {card.title}\n\n{card.card()}\n\n")
        if card in own:
            hints = re.findall(r"<summary>Hint (\d): ", part)
            assert hints == ["1", "2", "3"]
            assert f"def {card.function}(" in code
            assert f'"{card.to_return()}"' in code
        else:
            assert "**Rubric**" in part


@by_name
def test_the_answer_stands_between_marks(source):
    """Each exercise has one gap; what is left raises."""
    assert len(IN_CODE.findall(text_of(source, "code"))) == len(of_lesson(source.name[:2]))


def notebook_with(tmp_path, *sources):
    cells = [
        new_markdown_cell(s) if s.startswith(("#", "<")) else new_code_cell(s) for s in sources
    ]
    path = tmp_path / "04_exercises.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


GAP = "def decay_loop(q):\n    ### BEGIN SOLUTION\n    return q\n    ### END SOLUTION"


def test_a_gap_becomes_a_line_that_raises(tmp_path):
    path = notebook_with(tmp_path, GAP, 'check("4.4", decay_loop)')
    stub = nbformat.reads(derive(path), as_version=4).cells[0].source
    with pytest.raises(NotImplementedError, match="return o .text head token value."):
        exec(stub + "\ndecay_loop(1)", {})


def test_marks_without_a_partner_are_refused(tmp_path):
    path = notebook_with(tmp_path, GAP.replace("END", "BEGIN"), 'check("4.4", decay_loop)')
    with pytest.raises(ValueError, match="no partner"):
        derive(path)
    with pytest.raises(ValueError, match="no partner"):
        derive(notebook_with(tmp_path, "<!-- BEGIN SOLUTION -->\nbecause"))


def test_a_gap_that_no_check_belongs_to_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no check is made"):
        derive(notebook_with(tmp_path, GAP))


def test_points_are_set():
    assert find("4.5").worth == 5
