import pytest
import torch
import torch.nn.functional as F

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots.recall import over_tokens, read_out_mover, read_outs, recall_over

KEYS = torch.tensor([[1, 0], [0, 1], [0.8, 0.6]])
VALUES = torch.tensor([8.0, 4.0, -5.0])


def drawn(axes):
    return axes.lines[-1].get_xdata(), axes.lines[-1].get_ydata()


def test_read_outs_are_the_ones_on_paper():
    figure, sentence = assert_readable(read_outs(KEYS, VALUES, [2, 3]))
    assert sentence == "2 pairs: off by 0.0 on average. 3 pairs: off by 5.8 on average."
    put, back = drawn(figure.axes[4])
    assert list(put) == [8, 4, -5]
    assert list(back) == pytest.approx([4, 1, 3.8])
    overlap = figure.axes[1].images[0].get_array()
    assert overlap[2, 0] == pytest.approx(0.8) and overlap[2, 1] == pytest.approx(0.6)
    assert figure.axes[0].images[0].get_array().mask[2].all()  # not yet in use


def test_every_answer_is_inside_the_picture():
    torch.manual_seed(0)
    keys = torch.cat([torch.eye(8), F.normalize(torch.randn(24, 8), dim=1)])
    values = torch.linspace(-1, 1, 32)[torch.randperm(32)]
    axes = read_outs(keys, values, [8, 32])[0].axes[4]
    low, high = axes.get_ylim()
    assert low < min(drawn(axes)[1]) < -1 < 1 < max(drawn(axes)[1]) < high


def test_the_mover_sets_the_number_of_pairs():
    figure, move = read_out_mover(KEYS, VALUES)
    assert move(2.0) == "2 pairs: off by 0.0 on average."
    assert list(drawn(figure.axes[1])[1]) == pytest.approx([8, 4])
    assert move(3.0) == "3 pairs: off by 5.8 on average."
    assert len(drawn(figure.axes[1])[1]) == 3


def test_recall_says_who_is_above_the_mark():
    measured = {"good": [0.2, 0.5, 0.98], "bad": [0.9, 0.5, 0.3]}
    figure, sentence = assert_readable(
        recall_over([2, 4, 8], measured, "pairs (number)", foretold={"bad": [1, 0.4, 0.2]}, mark=60)
    )
    assert sentence == "At the right end above 60 %: good; below: bad."
    axes = figure.axes[0]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([20, 50, 98])
    assert list(axes.lines[2].get_ydata()) == pytest.approx([100, 40, 20])
    assert_told_apart_without_colour(axes)
    assert recall_over([1], {"a": [0.1]}, "x (1)")[1].endswith("above 50 %: none; below: a.")


def test_over_tokens_marks_events():
    figure, sentence = assert_readable(
        over_tokens({"sum": [1.0, 4.0], "new": [1.0, 3.0]}, "answer (1)", {2: "again"})
    )
    assert sentence == "After the last token: sum 4, new 3."
    axes = figure.axes[0]
    assert list(axes.lines[0].get_ydata()) == [1, 4]
    assert axes.texts[0].get_text() == "again" and axes.lines[2].get_xdata()[0] == 2
    assert_told_apart_without_colour(axes)


@pytest.mark.bad_input
def test_broken_input():
    with pytest.raises(ValueError, match="got counts \\[4\\]"):
        read_outs(KEYS, VALUES, [4])
    with pytest.raises(ValueError, match="got counts \\[\\]"):
        read_outs(KEYS, VALUES, [])
    with pytest.raises(ValueError, match="got 3 keys and 2 values"):
        read_out_mover(KEYS, VALUES[:2])
    with pytest.raises(ValueError, match="got 0 curves"):
        recall_over([1], {}, "x (1)")
    with pytest.raises(ValueError, match="where has 1, a has 2"):
        recall_over([1], {"a": [1, 2]}, "x (1)")
    with pytest.raises(ValueError, match="foretold \\['b'\\]"):
        recall_over([1], {"a": [1]}, "x (1)", foretold={"b": [1]})
    with pytest.raises(ValueError, match="got 0 series"):
        over_tokens({}, "x (1)", {})
    with pytest.raises(ValueError, match="events at \\[3\\], expected tokens 1 to 2"):
        over_tokens({"a": [1, 2]}, "x (1)", {3: "no"})
