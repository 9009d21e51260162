"""How every figure of the course looks: legible on a page at 100 %, in grey, and colour-blind.

Lines differ in dash and marker before they differ in colour, so that a figure survives a printer.
The colours are Okabe and Ito's, which people with any colour vision can tell apart.
"""

import functools
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

import matplotlib
from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREEN, PINK = "#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PALE = "#DCE9F2"  # a fill that black text can be read on
SHADES = "Blues"  # from white to dark: the order stays when it is printed in grey
LINES = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": PINK, "linestyle": ":", "marker": "D"},
)
DPI = 100  # pixels per inch: 7.5 inches fill a column of text

STYLE = {
    **{name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"},
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "legend.frameon": False,
}

Drawing = tuple[Figure, str]
Result = TypeVar("Result")


def drawing(function: Callable[..., Result]) -> Callable[..., Result]:
    """Draw in the style of the course, whatever the reader has set for their own figures."""

    @functools.wraps(function)
    def styled(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return styled


def new_figure(width: float = 7.5, height: float = 3.6) -> Figure:
    """An empty figure, in inches, that belongs to nobody: pyplot will not show it a second time."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def need_equal_lengths(**series: Sequence) -> None:
    """ValueError, in one sentence, for series that are empty or do not have one length."""
    lengths = {name: len(values) for name, values in series.items()}
    if 0 in lengths.values() or len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(f"{said} values; expected the same number of each, at least one")


def need_few(what: str, curves: Sized) -> None:
    """ValueError, in one sentence, for none, or for more than have a look of their own in LINES."""
    if not 1 <= len(curves) <= len(LINES):
        raise ValueError(f"got {len(curves)} {what}, expected 1 to {len(LINES)}")
