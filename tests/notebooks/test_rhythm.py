"""How a lesson is built: small cells, short texts, figures in words, questions before surprises."""

import re
from itertools import zip_longest
from pathlib import Path
from statistics import median

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
EQUATION = re.compile(r"\$\$.*?\$\$", re.DOTALL)


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def cells(request):
    return nbformat.read(request.param, as_version=4).cells


def sources(cells, kind):
    return [cell.source for cell in cells if cell.cell_type == kind]


def lines(source):
    return sum(line.strip() != "" for line in source.splitlines())


def words(source):
    """An equation of its own counts as one word."""
    return len(EQUATION.sub(" equation ", source).split())


def test_code_cells_are_small(cells):
    sizes = [lines(source) for source in sources(cells, "code")]
    assert 4 <= median(sizes) <= 8
    assert sum(size <= 20 for size in sizes) >= 0.9 * len(sizes)


def test_text_cells_are_short(cells):
    assert 40 <= median(map(words, sources(cells, "markdown"))) <= 80


def test_a_lesson_opens_with_its_contract_and_ends_with_what_to_carry_on(cells):
    first, *others = sources(cells, "markdown")
    for part in ("Question", "After this you can", "You need", "Time", "Runs in"):
        assert f"**{part}**" in first, part
    for part in ("## What to carry on", "**Sources**"):
        assert part in "".join(others[-3:]), part


def test_questions_come_before_surprises(cells):
    texts = sources(cells, "markdown")
    assert sum("**Predict" in text for text in texts) >= 3
    folds = [text for text in texts if "<summary>Check your" in text]
    assert len(folds) >= 3 and all("</details>" in text for text in folds)


def test_figures_are_there_in_words_and_one_moves(cells):
    """The sentence is below a picture and stands as its alternative text."""
    found = [
        (output, below)
        for cell in cells
        if cell.cell_type == "code"
        for output, below in zip_longest(cell.outputs, cell.outputs[1:])
        if "image/png" in output.get("data", {})
    ]
    assert len(found) >= 3
    for picture, below in found:
        words = picture.metadata["image/png"]["alt"]
        assert words.endswith(".") and below.data["text/plain"] == words
    assert any("slider(" in source for source in sources(cells, "code"))


def test_a_widget_says_in_words_what_stands_there(cells):
    widget = "application/vnd.jupyter.widget-view+json"
    for cell in cells:
        for output in cell.get("outputs", []):
            if widget in output.get("data", {}):
                assert "make lab" in output.data["text/plain"]
