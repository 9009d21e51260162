import pytest

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu import TransNormerConfig
from transnormer_edu.info import summarise
from transnormer_edu.plots.memory import state_and_cache, what_is_left


def test_lines_cross_where_the_sentence_says():
    figure, sentence = assert_readable(state_and_cache([10, 1000], 3e6, 2e4))
    assert "The state is 3.0 MB" in sentence
    assert "after 150 tokens" in sentence
    assert "7 times as large after 1,000" in sentence  # 20 MB / 3 MB, rounded
    assert_told_apart_without_colour(figure.axes[0])
    state, cache, meeting = figure.axes[0].lines
    assert list(state.get_ydata()) == [3, 3]
    assert list(cache.get_ydata()) == pytest.approx([0.2, 20])
    assert meeting.get_xdata()[0] == 150


def test_numbers_of_the_smallest_published_model():
    """24 layers of 8 heads: 128 x 128 numbers each, twice as many in layer 0, which has LRPE."""
    state = summarise(TransNormerConfig.preset("385m")).state_bytes
    assert state == 4 * 8 * 128 * 128 * 25
    assert "after 133 tokens" in state_and_cache([1], state, 2 * 24 * 1024 * 2)[1]


def test_what_is_left():
    figure, sentence = assert_readable(what_is_left([8, 6, 5], 0.5))
    assert sentence == "What token 3 still sees of each: 2 of 8, 3 of 6, 5 of 5."
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [8, 6, 5, 2, 3, 5]
    with pytest.raises(ValueError, match=r"decay is 1\.5"):
        what_is_left([1], 1.5)


@pytest.mark.parametrize("broken", [([], 1, 1), ([0], 1, 1), ([1], 0, 1), ([1], 1, -1)])
def test_broken_input(broken):
    with pytest.raises(ValueError, match="expected"):
        state_and_cache(*broken)
