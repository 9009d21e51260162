import numpy as np
import pytest

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots import speed

FLOORS = {"forward": ([10, 40], [0.5, 2.0]), "backward": ([10, 40], [1.0, 4.0])}
CURVES = {
    "forward": {"ours": ([10, 40], [0.6, 2.1]), "slow": ([10], [7.0])},
    "backward": {"ours": ([10, 40], [1.5, 6.25]), "slow": ([10], [9.0])},
}
SHARES = {"forward": ([0.9, 0.6], [1.0, 0.75]), "backward": ([0.5, 0.6], [0.625, 0.7])}
MEMORY = {"forward": {"ours": 1.0, "wide": 3.0}, "backward": {"ours": 1.5, "wide": 2.25}}
PROGRAMS = {2: 12, 5: 10}


def test_times_above_their_floor():
    figure, sentence = assert_readable(speed.times(CURVES, FLOORS))
    assert "at 40 tokens: forward ours 2.1, floor 2; backward ours 6.25, floor 4." in sentence
    for axes, way in zip(figure.axes, CURVES, strict=True):
        ours, slow, floor = axes.lines
        assert axes.get_title() == way
        assert list(ours.get_ydata()) == CURVES[way]["ours"][1]
        assert list(slow.get_xdata()) == [10]
        assert list(floor.get_ydata()) == FLOORS[way][1]
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert_told_apart_without_colour(axes)


def test_six_curves_are_told_apart():
    many = {"forward": {name: ([10, 40], [1.0, 2.0]) for name in "abcdef"}}
    figure, _ = speed.times(many, FLOORS)
    assert_told_apart_without_colour(figure.axes[0])


def test_shares_beside_what_counting_allows():
    figure, sentence = assert_readable(speed.shares(["2 × 10", "2 × 40"], SHARES))
    assert sentence == (
        "Of what counting allows, the forward reaches 80 to 90 %, the backward reaches 80 to 86 %."
    )
    for axes, (measured, allowed) in zip(figure.axes, SHARES.values(), strict=True):
        assert [bar.get_width() for bar in axes.patches] == measured
        assert list(axes.lines[0].get_xdata()) == allowed
        assert [text.get_text() for text in axes.texts] == [f"{share:.2f}" for share in measured]


def test_memory_in_sizes_of_the_result():
    figure, sentence = assert_readable(speed.memory(MEMORY))
    assert "forward: ours 1.0, wide 3.0; backward: ours 1.5, wide 2.2." in sentence
    for axes, sizes in zip(figure.axes, MEMORY.values(), strict=True):
        assert [bar.get_width() for bar in axes.patches] == list(sizes.values())
        assert list(axes.lines[0].get_xdata()) == [1, 1]


def test_the_timetable_of_segments():
    figure, sentence = assert_readable(speed.segment_clock(12, 3))
    assert "needs 12 steps" in sentence
    assert "3 programs need 4 for the sums, one to join them, 4 for the scan: 9," in sentence
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert bars[0] == (0, 12)
    assert bars[1:3] == [(0, 4)] * 2  # the last segment sums nothing
    assert bars[4:] == [(5, 4)] * 3  # after the join


def busy(axes):
    """Squares that are filled, and squares that are drawn."""
    squares = axes.collections[0].get_array()
    return int(squares.sum()), int(np.ma.count(squares))


def test_who_is_busy():
    figure, sentence = assert_readable(speed.filled(PROGRAMS, 13))
    assert "2 heads fill 15 %, in segments 92 %; 5 heads fill 38 %, in segments 77 %." in sentence
    assert [busy(axes) for axes in figure.axes] == [(2, 13), (5, 13), (12, 13), (10, 13)]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[::2] == ["2 heads: 2 busy", "in segments: 12 busy"]


def test_the_mover_fills_both():
    figure, move = speed.filled_mover(PROGRAMS, 13)
    assert move(2) == "2 heads: 15 % of the GPU is busy; cut into segments, 92 %."
    assert [busy(axes) for axes in figure.axes] == [(2, 13), (12, 13)]
    assert "5 heads: 38 %" in move(5)
    assert [busy(axes) for axes in figure.axes] == [(5, 13), (10, 13)]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: speed.times({}, FLOORS),
        lambda: speed.times({"sideways": CURVES["forward"]}, FLOORS),
        lambda: speed.times({"forward": {}}, FLOORS),
        lambda: speed.times({"forward": {name: ([1], [1.0]) for name in "abcdefg"}}, FLOORS),
        lambda: speed.times({"forward": {"a": ([10, 40], [1.0])}}, FLOORS),
        lambda: speed.shares(["one"], SHARES),
        lambda: speed.shares(["a", "b"], {"forward": ([0.9, 0.0], [1.0, 1.0])}),
        lambda: speed.memory({}),
        lambda: speed.memory({"forward": {"ours": 1.0}, "backward": {"theirs": 1.0}}),
        lambda: speed.segment_clock(12, 1),
        lambda: speed.segment_clock(12, 5),
        lambda: speed.filled({}, 13),
        lambda: speed.filled({14: 14}, 13),
        lambda: speed.filled_mover({2: 14}, 13),
    ],
)
def test_broken_input(draw):
    with pytest.raises(ValueError, match="expected"):
        draw()
