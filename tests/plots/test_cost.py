import pytest

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots.cost import growth

LENGTHS = [10, 30, 60]


def test_costs_beside_n_and_n_squared():
    costs = {"softmax": [2.0, 9.0, 31.5], "linear": [1.0, 3.0, 6.3]}
    figure, sentence = assert_readable(growth(LENGTHS, costs, "time (s)"))
    assert "From 30 to 60 tokens" in sentence
    assert "softmax 3.5, linear 2.1." in sentence
    assert "with n is multiplied by 2, what grows with n² by 4" in sentence
    axes = figure.axes[0]
    assert axes.get_ylabel() == "time (s)"
    line, square, *measured = axes.lines
    assert list(line.get_ydata()) == pytest.approx([1, 3, 6])
    assert list(square.get_ydata()) == pytest.approx([1, 9, 36])
    assert [list(curve.get_ydata()) for curve in measured] == list(costs.values())
    assert_told_apart_without_colour(axes)


@pytest.mark.parametrize(
    "lengths, costs",
    [
        (LENGTHS, {}),
        (LENGTHS, {"a": [1.0, 2.0]}),
        ([10], {"a": [1.0]}),
        (LENGTHS, {"a": [1.0, 0.0, 2.0]}),
    ],
)
def test_broken_input(lengths, costs):
    with pytest.raises(ValueError, match="expected"):
        growth(lengths, costs, "time (s)")
