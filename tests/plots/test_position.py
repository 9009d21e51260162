import math

import pytest
import torch

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots.position import (
    arrows,
    arrows_mover,
    ladder,
    loss_over_context,
    maps,
    rounded_positions,
)


def test_arrows_point_where_their_positions_turn_them():
    figure, sentence = assert_readable(arrows(2, 3, math.pi / 2, [(7, 5), (7, 6), (8, 8)]))
    assert sentence.endswith("-6 for (7, 5), 0 for (7, 6), 6 for (8, 8).")
    query, key = figure.axes[0].lines
    assert query.get_xydata()[1] == pytest.approx([0, -2], abs=1e-12)  # three quarters of a turn
    assert key.get_xydata()[1] == pytest.approx([0, 3], abs=1e-12)  # five quarters
    assert_told_apart_without_colour(figure.axes[0])
    with pytest.raises(ValueError, match="got 0 pairs"):
        arrows(2, 3, 1, [])


def test_the_mover_turns_both_and_keeps_the_score():
    figure, move = arrows_mover(2, 3, 0.7, distance=2)
    said = {move(t).split("the score is ")[1] for t in (2, 9, 20)}
    assert said == {f"{6 * math.cos(1.4):.3f}."}
    query, key = figure.axes[0].lines
    assert query.get_xydata()[1] == pytest.approx([2 * math.cos(14), 2 * math.sin(14)])
    assert key.get_xydata()[1] == pytest.approx([3 * math.cos(12.6), 3 * math.sin(12.6)])


def test_maps_show_the_past_and_only_that():
    weight = torch.tensor([[0.5, 9.0], [-0.25, 0.5]])  # 9 stands in the future
    figure, sentence = assert_readable(maps({"one": weight, "two": weight / 2}))
    assert "one: from -0.25 to 0.50; two: from -0.12 to 0.25" in sentence
    drawn = figure.axes[1].images[0].get_array()
    assert drawn.mask.tolist() == [[False, True], [False, False]]
    assert drawn[1, 0] == -0.125
    with pytest.raises(ValueError, match="one has a weight beyond 1"):
        maps({"one": 3 * weight})
    with pytest.raises(ValueError, match="got 0 maps"):
        maps({})


def test_ladder_counts_what_turns():
    start = torch.tensor([[1.0, 0.5], [0.05, 0.001]])  # a turn in 100 tokens: 0.063
    figure, sentence = assert_readable(ladder(start, 100, learned=-2 * start))  # 0.002 is too slow
    assert "over 2 heads of 2 features; 2 of 4 features turn at least once " in sentence
    assert "in 100 tokens, after training 3." in sentence
    first, learned, _ = figure.axes[0].lines[:3]
    assert first.get_ydata().tolist() == pytest.approx([1, 0.5, 0.05, 0.001])
    assert learned.get_ydata().tolist() == pytest.approx([2, 1, 0.1, 0.002])
    assert (first.get_marker(), learned.get_marker()) == ("None", "x")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2", "head"]


@pytest.mark.bad_input
def test_ladder_refuses_what_does_not_fit():
    start = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"learned is \(1, 4\), expected \(2, 2\)"):
        ladder(start, 100, start.reshape(1, 4))
    with pytest.raises(ValueError, match="length is 0"):
        ladder(start, 0)


def test_rounded_positions_say_how_wrong_they_are():
    exact, rounded = [1.0, 0.5], [1.0, 0.75]
    figure, sentence = assert_readable(rounded_positions(exact, rounded, 300))
    assert "query at 300" in sentence and "up to 0.25" in sentence
    assert_told_apart_without_colour(figure.axes[0])
    with pytest.raises(ValueError, match="rounded has 1"):
        rounded_positions(exact, rounded[:1], 300)


def test_loss_over_context_speaks_of_what_lies_beyond_training():
    losses = {"a": [5.0, 4.0, 4.01], "b": [5.0, 4.0, 4.2], "c": [6.0, 4.0, 3.0]}
    figure, sentence = assert_readable(loss_over_context([64, 256, 1024], losses, 256))
    assert (
        sentence
        == "Change of the loss from 256 to 1024 tokens, in nats: a +0.01; b +0.20; c -1.00."
    )
    assert list(figure.axes[0].lines[1].get_ydata()) == [5.0, 4.0, 4.2]
    with pytest.raises(ValueError, match="a has 1"):
        loss_over_context([64, 256], {"a": [1.0]}, 256)
    with pytest.raises(ValueError, match="got 0 models"):
        loss_over_context([64, 256], {}, 256)
