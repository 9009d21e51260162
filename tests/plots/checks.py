"""What every figure of the course owes its reader."""

import re

UNIT = re.compile(r"\([^)]+\)")


def assert_readable(drawn) -> tuple:
    """Axes labelled with units, letters of a readable size, a sentence; gives both back."""
    figure, sentence = drawn
    assert sentence.strip().endswith(".")
    for axes in figure.axes:
        if not axes.axison:  # a drawing, not a plot
            continue
        shared = axes.get_shared_x_axes().get_siblings(axes)  # one label below all of them will do
        assert any(UNIT.search(one.get_xlabel()) for one in shared), axes.get_xlabel()
        if axes.get_subplotspec().is_first_col():  # panels beside it share its label
            label = axes.get_ylabel()
            assert UNIT.search(label) or (label and _names_things(axes)), label
    for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")):
        assert not text.get_text() or text.get_fontsize() >= 9, text.get_text()
    return figure, sentence


def assert_told_apart_without_colour(axes) -> None:
    """Lines with a legend differ in dash or marker."""
    looks = [
        (line.get_linestyle(), line.get_marker())
        for line in axes.lines
        if not line.get_label().startswith("_")
    ]
    assert len(looks) == len(set(looks)) >= 2


def _names_things(axes) -> bool:
    """An axis whose ticks are words needs no unit."""
    return any(label.get_text().strip("'").isalpha() for label in axes.get_yticklabels())
