import pytest
import torch

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots.quantise import cost, sizes, stairs, stairs_mover

WEIGHTS = torch.randn(32, generator=torch.Generator().manual_seed(0))


def test_weights_stand_on_their_levels():
    figure, sentence = assert_readable(stairs(WEIGHTS, 4))
    points, steps = figure.axes[0].lines
    assert points.get_ydata() == pytest.approx(WEIGHTS.sort().values.numpy())
    largest = abs(points.get_ydata() - steps.get_ydata()).max()
    assert sentence.endswith(f"moved by more than {largest:.2g}.")
    assert largest < 0.6 * (WEIGHTS.max() - WEIGHTS.min()) / 15
    levels = len(set(steps.get_ydata().tolist()))
    assert f"32 weights stand on {levels} levels" in sentence and 8 < levels <= 16


@pytest.mark.bad_input
def test_weights_that_fill_no_int32():
    for wrong in (WEIGHTS[:5], WEIGHTS[None], WEIGHTS[:0]):
        with pytest.raises(ValueError, match="expected one row of 16"):
            stairs(wrong, 4)


def test_more_bits_move_the_levels():
    figure, move = stairs_mover(WEIGHTS)
    line = figure.axes[0].lines[1]
    for bits in (8, 4, 2):
        assert move(bits) == stairs(WEIGHTS, bits)[1]
        assert (line.get_ydata() == stairs(WEIGHTS, bits)[0].axes[0].lines[1].get_ydata()).all()
        assert figure.axes[0].get_title() == f"{bits} bits"


def test_the_cost_of_rounding():
    curves = {"nearest": {8: 2.0, 2: 2.2}, "GPTQ": {8: 2.0, 2: 2.1}}
    figure, sentence = assert_readable(cost(2.0, curves))
    assert "nearest: +0.0 % at 8, +10.0 % at 2; GPTQ: +0.0 % at 8, +5.0 % at 2." in sentence
    assert_told_apart_without_colour(figure.axes[0])
    for nothing in ({}, {"GPTQ": {}}):
        with pytest.raises(ValueError, match="got no curve"):
            cost(2.0, nothing)


def test_sizes():
    figure, sentence = assert_readable(sizes({"fp32": 27.3, "bf16": 13.7}))
    assert sentence == "Memory that the weights take: fp32 27.3 GB, bf16 13.7 GB."
    assert [bar.get_width() for bar in figure.axes[0].patches] == [13.7, 27.3]
    for wrong in ({}, {"a": 0.0}):
        with pytest.raises(ValueError, match="expected one or more, above 0"):
            sizes(wrong)
