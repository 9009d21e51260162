import numpy as np
import pytest
import torch

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots.attention import (
    attention_map,
    attention_map_mover,
    attention_maps,
    score_spread,
)

WEIGHTS = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.2, 0.7, 0.1]])
OTHER = torch.tensor([[0.9, 0.0, 0.0], [0.3, 0.1, 0.0], [0.8, -0.2, 0.1]])


def pixels(axes):
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def test_one_map():
    figure, sentence = assert_readable(attention_map(WEIGHTS))
    assert "token 3 looks most at token 2, with weight 0.70" in sentence
    axes = figure.axes[0]
    np.testing.assert_allclose(pixels(axes)[np.tril_indices(3)], WEIGHTS[*np.tril_indices(3)])
    written = [text.get_text() for text in axes.texts]
    assert written == ["1.00", "0.40", "0.60", "0.20", "0.70", "0.10"]


def test_the_future_is_not_drawn_even_where_it_has_weight():
    figure, _ = attention_map(torch.ones(3, 3).triu(1) * 9 + WEIGHTS)
    assert np.isnan(pixels(figure.axes[0])[np.triu_indices(3, 1)]).all()
    assert figure.axes[0].images[0].norm.vmax == 1.0
    assert figure.axes[0].patch.get_hatch()


def test_tokens_have_names():
    figure, sentence = assert_readable(attention_map(WEIGHTS, ["the", "cat", "sat"]))
    assert "token 3 (sat) looks most at token 2 (cat)" in sentence
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["the", "cat", "sat"]


def test_no_token_is_named_where_several_share_the_peak():
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.4, 0.2, 0.4 + 1e-8]])
    assert "token 3 looks most at 2 tokens alike, with weight 0.40" in attention_map(weights)[1]


def test_many_tokens_are_numbered_from_one_and_hold_no_numbers():
    figure, _ = assert_readable(attention_map(torch.ones(40, 40)))
    axes = figure.axes[0]
    assert not axes.texts
    assert axes.get_xticks()[-1] == 40
    assert [label.get_text() for label in axes.get_xticklabels()][-1] == "40"
    assert axes.images[0].get_extent() == [0.5, 40.5, 40.5, 0.5]


@pytest.mark.parametrize(
    "tokens, n, shown",
    [
        (None, 3, ["1", "2", "3"]),
        (None, 12, ["2", "4", "6", "8", "10", "12"]),
        (None, 128, ["20", "40", "60", "80", "100", "120"]),
        (["w"] * 24, 24, ["w"] * 24),
        (["w"] * 30, 30, ["w"] * 15),
    ],
)
def test_names_do_not_touch_each_other(tokens, n, shown):
    axes = attention_map(torch.ones(n, n), tokens)[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == shown


def test_maps_share_one_scale():
    figure, sentence = assert_readable(attention_maps({"one": WEIGHTS, "other": OTHER}))
    one, other, _ = figure.axes
    assert one.images[0].norm.vmin == other.images[0].norm.vmin == pytest.approx(-0.2)
    assert one.images[0].norm.vmax == other.images[0].norm.vmax == 1.0
    assert (one.get_title(), other.get_title()) == ("one", "other")
    assert "in “one” token 3 looks most at token 2, with weight 0.70" in sentence
    assert "in “other” token 3 looks most at token 1, with weight 0.80" in sentence


def test_the_mover_changes_the_pixels():
    figure, move = attention_map_mover({4: WEIGHTS, 16: OTHER})
    assert move(16) == "At 16, token 3 looks most at token 1, with weight 0.80."
    np.testing.assert_allclose(pixels(figure.axes[0])[2], OTHER[2])
    norm = figure.axes[0].images[0].norm
    assert (norm.vmin, norm.vmax) == (pytest.approx(-0.2), 1)  # of all maps, whichever is shown
    assert "token 2" in move(4)
    np.testing.assert_allclose(pixels(figure.axes[0])[2], WEIGHTS[2])


def test_spread_of_scores():
    series = {"without": [0.3, 0.9], "with": [0.25, 0.26]}
    figure, sentence = assert_readable(score_spread([4, 64], [2.0, 8.2], series))
    assert "is √d, to within 3 %" in sentence  # 8.2 / 8 = 1.025
    assert "at d = 64 the largest weight of a row is on average 0.90 without, 0.26 with" in sentence
    left, right = figure.axes
    assert list(left.lines[0].get_ydata()) == [2, 8]
    assert list(left.lines[1].get_ydata()) == [2, 8.2]
    assert [list(line.get_ydata()) for line in right.lines] == list(series.values())
    assert_told_apart_without_colour(left)
    assert_told_apart_without_colour(right)


@pytest.mark.bad_input
def test_spread_of_nothing():
    with pytest.raises(ValueError, match="expected 1 to 4"):
        score_spread([4], [2.0], {})
    with pytest.raises(ValueError, match="expected the same number"):
        score_spread([4, 8], [2.0], {"a": [1.0, 1.0]})


@pytest.mark.bad_input
def test_broken_input():
    with pytest.raises(ValueError, match="square"):
        attention_map(torch.ones(2, 3))
    with pytest.raises(ValueError, match="NaN"):
        attention_map(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="2 tokens for a map of 3"):
        attention_map(WEIGHTS, ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        attention_maps({})
    with pytest.raises(ValueError, match="all of one size"):
        attention_maps({"a": WEIGHTS, "b": torch.ones(2, 2)})
