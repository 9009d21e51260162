import math

import pytest
import torch

from tests.plots.checks import assert_readable
from transnormer_edu.plots import text

LOGITS = torch.tensor([0.0, 2.0, 1.0, -3.0])


def test_shares_are_a_softmax_of_the_logits_over_the_temperature():
    weights = [math.exp(z / 0.7) for z in LOGITS.tolist()]
    expected = [w / sum(weights) for w in weights]
    assert text.shares(LOGITS, 0.7).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_no_shares_at_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match="expected a number above 0"):
        text.shares(LOGITS, temperature)


def test_bars_and_sentence():
    figure, sentence = assert_readable(text.next_token(LOGITS, ["best", "second"], (1, 4)))
    whole = sum(math.exp(z) for z in LOGITS.tolist())
    share = math.exp(2) / whole
    assert f"'best', has {100 * share:.0f} % at temperature 1" in sentence
    assert [axes.get_title() for axes in figure.axes] == ["temperature 1", "temperature 4"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([share, math.exp(1) / whole])


def test_the_mover_sets_the_bars():
    figure, move = text.next_token_mover(LOGITS, ["best", "second"])
    sentence = move(0.5)
    expected = text.shares(LOGITS, 0.5)[[1, 2]].tolist()
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx(expected)
    assert f"{100 * expected[0]:.0f} %" in sentence


def test_words_must_fit_the_logits():
    with pytest.raises(ValueError, match="5 words for 4 logits"):
        text.next_token(LOGITS, list("abcde"))
    with pytest.raises(ValueError, match="at least one"):
        text.next_token(LOGITS, [])
