import math

import pytest

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots.signal import along_text, costs, through_layers


def test_along_text_compares_the_end_with_the_first_token():
    figure, sentence = assert_readable(along_text({"a": [2.0] * 7 + [60.0], "b": [1.0] * 8}))
    assert sentence.endswith("a grows to about 30 times its size; b keeps its size.")
    assert_told_apart_without_colour(figure.axes[0])
    assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="a has 1, b has 2"):
        along_text({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match="got 0 series"):
        along_text({})


def test_costs_add_up():
    figure, sentence = assert_readable(costs({"small": (1.0, 4.5), "big": (3.5, 7.0)}))
    assert sentence.startswith("Together 4.5 million parameters and 11.5 MFLOP per token")
    assert sentence.endswith("the most parameters are in big.")
    left, right = ([bar.get_width() for bar in axes.patches] for axes in figure.axes)
    assert (left, right) == ([1, 3.5], [4.5, 7])
    with pytest.raises(ValueError, match="parts has 0"):
        costs({})


def test_a_line_stops_where_it_is_no_longer_finite():
    signal = {"good": [1.0, 2.0, 3.0], "bad": [1.0, math.inf, math.nan]}
    figure, sentence = assert_readable(through_layers(signal, signal))
    assert sentence == "good: finite through 2 blocks; bad: not finite after block 1."
    for axes in figure.axes:
        assert_told_apart_without_colour(axes)
        drawn = axes.lines[1].get_ydata()
        assert drawn[0] == 1 and all(math.isnan(value) for value in drawn[1:])
    with pytest.raises(ValueError, match="expected the same names"):
        through_layers(signal, {"good": [1.0]})
