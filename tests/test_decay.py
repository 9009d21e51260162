"""Rates against the tables of the released code and of the paper, computed here by hand."""

import math

import numpy as np
import pytest
import torch

from transnormer_edu.decay import (
    decay_mask,
    flat_rates,
    half_life,
    no_rates,
    paper_rates,
    released_rates,
    window,
)


def test_released_rates_of_eight_heads():
    halves = torch.tensor([0.5**i for i in range(1, 9)])
    torch.testing.assert_close(released_rates(8, 0, 24), halves * (1 + 1e-5))
    torch.testing.assert_close(released_rates(8, 23, 24), halves * 1e-5)
    torch.testing.assert_close(released_rates(8, 5, 24), halves * (1 - 5 / 23 + 1e-5))


def test_windows_are_those_of_the_facts():
    windows = window(released_rates(8, 0, 24))
    assert [round(float(w)) for w in windows] == [2, 4, 8, 16, 32, 64, 128, 256]
    printed = window(paper_rates(8, 0, 24))
    torch.testing.assert_close(printed[[0, -1]], torch.tensor([1.0, 1 / 8]))


@pytest.mark.parametrize("heads, power", [(20, 16), (40, 32), (3, 2), (12, 8), (1, 1), (6, 4)])
def test_other_head_counts_borrow_every_second_slope(heads, power):
    whole = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    borrowed = [2 ** (-8 * (i + 1) / (2 * power)) for i in range(0, 2 * power, 2)]
    expected = torch.tensor((whole + borrowed)[:heads]) * (1 + 1e-5)
    torch.testing.assert_close(released_rates(heads, 0, 4), expected)


@pytest.mark.bad_input
def test_numbers_may_be_numpys():
    assert torch.equal(released_rates(np.int64(6), 0, 2), released_rates(6, 0, 2))


def test_one_layer_is_a_first_layer():
    torch.testing.assert_close(released_rates(4, 0, 1), released_rates(4, 0, 9))


def test_paper_rates():
    rate = paper_rates(5, 3, 7)
    expected = [8 * h / 5 * (1 - 3 / 7) for h in (1, 2, 3, 4, 5)]
    torch.testing.assert_close(rate, torch.tensor(expected))
    assert not torch.allclose(rate, released_rates(5, 3, 7))


def test_flat_rates_are_those_of_a_first_layer_everywhere():
    for heads in (8, 3):
        first = released_rates(heads, 0, 1, torch.float64) / (1 + 1e-5)
        for layer in (0, 4):
            torch.testing.assert_close(flat_rates(heads, layer, 5, torch.float64), first)


def test_half_life_halves():
    rate = released_rates(4, 1, 3)
    torch.testing.assert_close(torch.exp(-rate * half_life(rate)), torch.full((4,), 0.5))
    torch.testing.assert_close(torch.exp(-rate * window(rate)), torch.full((4,), 1 / math.e))
    assert half_life(no_rates(2, 0, 1)).isinf().all()


def test_mask_is_lower_triangular_powers():
    rate = torch.tensor([0.3, 0.0])
    mask = decay_mask(rate, 4)
    for t in range(4):
        for s in range(4):
            expected = torch.exp(-rate * (t - s)) if s <= t else torch.zeros(2)
            torch.testing.assert_close(mask[:, t, s], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_rate_does_not_let_the_future_in(dtype):
    assert not decay_mask(torch.zeros(1, dtype=dtype), 3000).triu(1).any()


def test_rates_do_not_follow_the_default_type():
    torch.set_default_dtype(torch.float16)
    try:
        rate = released_rates(8, 23, 24)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(rate, released_rates(8, 23, 24))
    assert torch.equal(rate, released_rates(8, 23, 24, torch.float64).float())


@pytest.mark.bad_input
@pytest.mark.parametrize("schedule", [released_rates, paper_rates, no_rates])
def test_bad_layers_and_heads_are_named(schedule):
    with pytest.raises(ValueError, match="layer is 4 of 4 layers, expected 0 to 3"):
        schedule(8, 4, 4)
    with pytest.raises(ValueError, match="heads is 0"):
        schedule(0, 0, 4)
    with pytest.raises(ValueError, match="heads is 1.5"):
        schedule(1.5, 0, 4)
    with pytest.raises(ValueError, match="layer is 0.5 of 4 layers"):
        schedule(8, 0.5, 4)
    with pytest.raises(ValueError, match="dtype is torch.int64, expected a floating type"):
        schedule(8, 0, 4, torch.int64)


@pytest.mark.bad_input
def test_a_mask_of_half_a_token_and_rates_in_a_list_are_named():
    with pytest.raises(ValueError, match="n is 1.5, expected a whole number of at least 0"):
        decay_mask(torch.zeros(1), 1.5)
    with pytest.raises(TypeError, match="rate is a list, expected a tensor"):
        decay_mask([0.1], 3)


@pytest.mark.bad_input
@pytest.mark.parametrize("what", [half_life, window, lambda rate: decay_mask(rate, 3)])
def test_rates_that_cannot_be_are_named(what):
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"got rates \[.*\]; expected none negative, NaN or"):
            what(torch.tensor([0.1, wrong]))
    for wrong in ([0.1], 0.1, "fast", torch.ones(2).long()):
        with pytest.raises(TypeError, match="rate .*expected a"):
            what(wrong)
