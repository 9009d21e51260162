import numpy as np
import pytest
import torch

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots import linear

STATES = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 2.0, 0.0], [3.0, 0.0, 0.5]]])
KEYS, VALUES = "ab", "xyz"


def test_states_token_by_token():
    figure, sentence = assert_readable(linear.state_steps(STATES, KEYS, VALUES, (1, 2)))
    assert "Cells in use, of 6: 1 after 1, 3 after 2 tokens" in sentence
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("after token 1", "after token 2")
    np.testing.assert_array_equal(first.images[0].get_array(), STATES[0])
    np.testing.assert_array_equal(second.images[0].get_array(), STATES[1])
    assert [text.get_text() for text in second.texts] == ["", "2", "", "3", "", "0.5"]
    assert first.images[0].norm.vmax == second.images[0].norm.vmax == 3


def test_the_mover_fills_the_table():
    figure, move = linear.state_mover(STATES, KEYS, VALUES, "zy")
    assert move(1) == "After token 1, 'z': 1 cells in use."
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), STATES[0])
    assert [text.get_text() for text in axes.texts] == ["", "1", "", "", "", ""]
    assert axes.get_title() == "z·"
    assert "3 cells" in move(2)
    assert axes.get_title() == "zy"
    assert [text.get_text() for text in axes.texts] == ["", "2", "", "3", "", "0.5"]


def test_gradients_over_the_size_of_the_scores():
    largest = {"sum": [5.0, 50.0, 500.0], "norm": [6.0, 60.0, 70.0]}
    figure, sentence = assert_readable(linear.gradient_size([1, 0.1, 0.01], largest))
    assert "goes on growing with sum; it stays bounded with norm." in sentence
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == list(largest.values())
    assert figure.axes[0].xaxis_inverted()
    assert_told_apart_without_colour(figure.axes[0])


def test_ranges_of_gradients():
    even, wild = torch.linspace(1, 3, 1001), torch.tensor([-2.0, -2.0, 2.0, 4e6])
    figure, sentence = assert_readable(linear.gradient_ranges({"even": even, "wild": wild}))
    assert "as a multiple of the median: even 2, wild about 1,000,000." in sentence  # 3 / 2, 2e6
    bar, median, top, *_ = figure.axes[0].lines
    assert list(bar.get_xdata()) == pytest.approx([1.02, 2.98])
    assert list(median.get_xdata()) == pytest.approx([2])
    assert list(top.get_xdata()) == [3]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["even", "wild"]


def test_sizes_of_outputs():
    outputs = {"mean": torch.tensor([2.0, 1.0]), "neither": torch.tensor([1.0, 24.0])}
    figure, sentence = assert_readable(linear.output_size(outputs))
    assert "mean 0.5, neither 24." in sentence
    assert list(figure.axes[0].lines[1].get_ydata()) == [1, 24]
    assert_told_apart_without_colour(figure.axes[0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: linear.state_steps(STATES, "abc", VALUES, (1,)),
        lambda: linear.state_steps(STATES, KEYS, VALUES, (3,)),
        lambda: linear.state_steps(STATES, KEYS, VALUES, ()),
        lambda: linear.state_mover(STATES, KEYS, VALUES, "xyz"),
        lambda: linear.gradient_size([1], {}),
        lambda: linear.gradient_size([1], {"a": [1.0, 2.0]}),
        lambda: linear.gradient_ranges({}),
        lambda: linear.output_size({}),
    ],
)
def test_broken_input(draw):
    with pytest.raises(ValueError, match="expected"):
        draw()
