import math

import numpy as np
import pytest
import torch

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.decay import paper_rates, released_rates
from transnormer_edu.plots.decay import mask_mover, masks, state_sizes, windows


def pixels(axes):
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def test_masks_and_their_local_mass():
    figure, sentence = assert_readable(masks([0.1, 0.5], 7))
    assert "Rate 0.1: half-life 6.9 tokens, window 10;" in sentence
    assert "Rate 0.5: half-life 1.4 tokens, window 2;" in sentence
    shown = pixels(figure.axes[1])
    for t in range(7):
        for s in range(7):
            expected = math.exp(-0.5 * (t - s)) if s <= t else math.nan
            assert shown[t, s] == pytest.approx(expected, nan_ok=True)
    curve = figure.axes[4].lines[-1].get_ydata()
    assert float(curve[0]) == pytest.approx(0) and float(curve[-1]) == pytest.approx(100)
    assert curve[16] > 60  # percent in the nearest 40 %


def test_no_decay_lies_on_the_diagonal():
    curve = masks([0], 9)[0].axes[2].lines[-1]
    np.testing.assert_allclose(curve.get_ydata(), curve.get_xdata(), rtol=1e-5)


def test_the_mover_changes_mask_curve_and_words():
    figure, move = mask_mover(6)
    assert "half-life 0.69 tokens, window 1;" in move(1.0)
    assert pixels(figure.axes[0])[5, 4] == pytest.approx(math.exp(-1))
    before = float(figure.axes[1].lines[-1].get_ydata()[16])
    assert "half-life inf" not in move(0) and "nothing is forgotten" in move(0)
    assert pixels(figure.axes[0])[5, 0] == 1
    after = float(figure.axes[1].lines[-1].get_ydata()[16])
    assert after == pytest.approx(40) and before > 60


def test_windows_of_both_schedules():
    schedules = {
        name: torch.stack([rates(8, layer, 24) for layer in range(24)])
        for name, rates in {"code": released_rates, "paper": paper_rates}.items()
    }
    figure, sentence = assert_readable(windows(schedules))
    assert "code: 2 (head 1) to 256 (head 8)" in sentence
    assert "paper: 1 (head 1) to 0.12 (head 8)" in sentence
    code, paper, _ = figure.axes
    written = [text.get_text() for text in code.texts]
    assert written[:8] == ["2", "4", "8", "16", "32", "64", "128", "256"]
    assert written[-8:] == ["200k", "400k", "800k", "1.6M", "3.2M", "6.4M", "13M", "26M"]
    assert paper.texts[-8].get_text() == "24"
    assert pixels(code)[0, 7] == pytest.approx(256, rel=1e-4)
    assert code.images[0].norm.vmax == paper.images[0].norm.vmax


def test_a_state_that_breaks_ends_in_a_cross():
    sizes = {"breaks": [1.0, 20.0, math.inf, math.nan], "stays": [1.0, 1.5, 1.6, 1.6]}
    figure, sentence = assert_readable(state_sizes(sizes, {"fp9": 50.0}))
    assert sentence == "breaks: holds no number from step 3 on; stays: never above 1.6."
    axes = figure.axes[0]
    assert_told_apart_without_colour(axes)
    breaks, cross, stays, limit = axes.lines
    assert list(breaks.get_ydata()) == [1, 20]
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([2], [20])
    assert len(stays.get_ydata()) == 4
    assert limit.get_ydata()[0] == 50


@pytest.mark.bad_input
def test_broken_input():
    with pytest.raises(ValueError, match=r"rate is -0\.1"):
        masks([0.1, -0.1], 4)
    with pytest.raises(ValueError, match="at least one"):
        masks([], 4)
    with pytest.raises(ValueError, match="expected all above 0"):
        windows({"none": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="at least one"):
        windows({})
    with pytest.raises(ValueError, match="got 0 runs"):
        state_sizes({}, {})
    with pytest.raises(ValueError, match="at least one"):
        state_sizes({"empty": []}, {})
    with pytest.raises(ValueError, match="no number in its first step"):
        state_sizes({"never": [math.nan]}, {})
