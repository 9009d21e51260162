"""Equations are drawn while a page is made; every equation of the lessons can be."""

import json
import re
from pathlib import Path

import pytest

from transnormer_edu.equations import equation, equation_or_source

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))


def equations_of(path: Path) -> list[tuple[str, bool]]:
    """(LaTeX, on a line of its own) of all equations in a notebook's prose."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    alone = re.findall(r"\$\$(.*?)\$\$", prose, re.S)
    inline = re.findall(r"(?<![\\$])\$([^$`]+?)\$", re.sub(r"\$\$.*?\$\$", "", prose, flags=re.S))
    return [(latex, True) for latex in alone] + [(latex, False) for latex in inline]


def test_an_equation_is_seen_and_heard():
    page = equation(r"\frac{a}{b} < 2", display=True)
    assert page.startswith('<div class="equation display">')
    seen, heard = page.split("</mjx-container>")
    assert 'aria-hidden="true"' in seen
    assert 'fill="currentColor"' in seen, "black letters on a dark page"
    assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in heard
    assert "<mo>&lt;</mo>" in heard
    assert equation("a", display=False).startswith('<span class="equation">')


def test_rows_stay_rows():
    page = equation(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", display=True)
    assert page.count("<mtr>") == 2


def test_a_number_is_drawn_once_for_each_equation():
    for _ in "ab":  # a second use of (1) is no error: lessons are pages of their own
        assert "<mtext>(1)</mtext>" in equation(r"a = b \tag{1}", display=True)


def test_a_brace_spans_what_it_stands_under():
    def width(latex):
        return float(re.search(r'width="([\d.]+)ex"', equation(latex, display=True))[1])

    assert width(r"\underbrace{a + b + c + d}_{x}") > 3 * width(r"\underbrace{a}_{x}")


def test_nothing_has_a_name_twice():
    assert ' id="' not in equation(r"a \tag{1}", display=True)


@pytest.mark.parametrize("latex", [r"\nosuchcommand", "x_{", r"\frac{a}"])
def test_what_is_no_latex_is_refused_and_shown_as_it_is(latex):
    with pytest.raises(ValueError, match="equation"):
        equation(latex, display=False)
    assert latex in equation_or_source(latex, display=False)
    assert "<svg" in equation("x", display=False), "the engine goes on"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_equation_of_a_notebook_can_be_drawn(path):
    for latex, display in equations_of(path):
        assert "<svg" in equation(latex, display)
