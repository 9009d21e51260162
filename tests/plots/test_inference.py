import math

import pytest
from matplotlib.colors import to_rgba

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots import inference
from transnormer_edu.plots.style import BLUE, INK

STATES, CACHES = {1024: 1e9, 4096: 1e9}, {1024: 2e9, 4096: 8e9}


def test_every_pair_is_compared_once_or_told_by_the_state():
    figure, sentence = assert_readable(inference.reading_plan([3, 4, 1]))
    assert "8 tokens in 3 calls of 3, 4, 1. Of 36 pairs 17 are compared" in sentence
    triangles, boxes = figure.axes[0].patches[::2], figure.axes[0].patches[1::2]
    assert [_area(shape.get_xy()[:-1]) for shape in triangles] == [6, 10, 1]
    assert [box.get_width() * box.get_height() for box in boxes] == [0, 12, 7]
    assert all(box.get_hatch() for box in boxes)


@pytest.mark.parametrize("pieces", [[], [3, 0]])
def test_no_plan_without_tokens(pieces):
    with pytest.raises(ValueError, match="at least one token"):
        inference.reading_plan(pieces)


def test_times_of_series_of_unequal_length():
    times = {
        "cache": {1024: 0.002, 4096: 0.007},
        "state": {1024: 0.003, 2**18: 0.0031, 2**20: 1.234},
    }
    figure, sentence = assert_readable(inference.time_over_context(times))
    assert sentence == "cache, 1K to 4K: 2 to 7 ms; state, 1K to 1M: 3 to 1,234 ms."
    axes = figure.axes[0]
    assert_told_apart_without_colour(axes)
    assert list(axes.lines[0].get_ydata()) == pytest.approx([2, 7])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1K", "4K", "256K", "1M"]


@pytest.mark.parametrize("broken", [{}, {"a": {1: 1.0}}, {"a": {1: 1.0, 2: 0.0}}])
def test_no_times(broken):
    with pytest.raises(ValueError, match="expected"):
        inference.time_over_context(broken)


@pytest.mark.parametrize("gone", [math.inf, math.nan])
def test_a_run_ends_where_there_is_no_number(gone):
    runs = {"breaks": [1e-7, 2e-7, gone, 1e-7], "holds": [1e-7, 1e-7, 3e-7, 1e-7]}
    figure, sentence = assert_readable(inference.errors_over_steps(runs))
    assert sentence == "breaks: numbers up to step 2, then none; holds: a number in all 4 steps."
    breaks, end, cross, holds = figure.axes[0].lines
    assert list(breaks.get_ydata()) == [1e-7, 2e-7]
    assert end.get_xdata()[0] == cross.get_xdata()[0] == 3
    assert len(holds.get_ydata()) == 4
    low, high = figure.axes[0].get_ylim()
    assert low < 1e-7 and cross.get_ydata()[0] < high
    assert {text.get_text() for text in figure.axes[0].texts} == {"no number"}


@pytest.mark.parametrize("broken", [{}, {"a": [math.nan, 1.0]}, {"a": []}])
def test_no_errors(broken):
    with pytest.raises(ValueError, match="expected"):
        inference.errors_over_steps(broken)


def test_choices_before_and_after():
    after = {"all": [0.5, 0.3, 0.2], "top 2": [0.625, 0.375, 0.0]}
    figure, sentence = assert_readable(inference.choices("abc", after["all"], after))
    assert "top 2: 2 of 3 tokens left, the first with 62 %" in sentence
    filled, hollow = figure.axes[1].containers
    assert [bar.get_width() for bar in filled] == after["top 2"]
    assert [bar.get_width() for bar in hollow] == after["all"]
    assert all(bar.get_facecolor()[3] == 0 for bar in hollow)
    for broken in ({}, {"short": [1.0]}):
        with pytest.raises(ValueError, match="expected"):
            inference.choices("abc", after["all"], broken)


def test_a_gpu_that_fills_up_and_overflows():
    figure, sentence = assert_readable(inference.gpu_filling(10.5e9, 10, STATES, CACHES))
    assert "10 texts at once. With states 69 would fit at any length" in sentence
    assert sentence.endswith("with caches 1K: 34, 4K: 8.")
    squares = [_squares(axes) for axes in figure.axes]
    # 10.5 GB of weights are 11 squares; 10.5 + 10 × 1 GB end in the 21st, with 10 × 2 in the 31st.
    assert squares == [(11, 10, 59), (11, 10, 59), (11, 20, 49), (11, 69, 0)]
    said = [_shown(axes) for axes in figure.axes]
    assert said == [[], [], [], ["does not fit:\n90 GB"]]


def test_the_mover_fills_both():
    figure, move = inference.gpu_filling_mover(10.5e9, 10, STATES, CACHES)
    said = move(4096)
    assert said == (
        "4,096 tokens, 10 texts: states 10.0 GB, caches 80.0 GB. At most 69 and 8 texts fit."
    )
    assert [_squares(axes) for axes in figure.axes] == [(11, 10, 59), (11, 69, 0)]
    move(1024)
    assert [_squares(axes) for axes in figure.axes] == [(11, 10, 59), (11, 20, 49)]
    assert not any(map(_shown, figure.axes))


@pytest.mark.parametrize("states, caches", [({}, {}), ({1: 1.0}, {2: 1.0})])
@pytest.mark.parametrize("draw", [inference.gpu_filling, inference.gpu_filling_mover])
def test_lengths_must_fit(draw, states, caches):
    with pytest.raises(ValueError, match="same lengths"):
        draw(1e9, 1, states, caches)


@pytest.mark.parametrize("n, said", [(300, "300"), (1024, "1K"), (2**18, "256K"), (2**20, "1M")])
def test_short_lengths(n, said):
    assert inference.in_k(n) == said


def _area(corners):
    """Of a polygon, by the shoelace formula."""
    pairs = zip(corners, [*corners[1:], corners[0]], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def _squares(axes):
    """How many are weights, texts, free."""
    (mesh,) = axes.collections
    colours = [tuple(colour) for colour in mesh.to_rgba(mesh.get_array().ravel())]
    return tuple(colours.count(to_rgba(colour)) for colour in (INK, BLUE, "white"))


def _shown(axes):
    return [text.get_text() for text in axes.texts if text.get_text() and text.get_rotation() != 90]
