import numpy as np
import pytest
import torch

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots import tiles

STATES = torch.tensor([[[0.0, 1], [0, 0]], [[0, 2], [3, 0.01]], [[4, 0.5], [0, 1]]])


def test_what_fits_where():
    things, places = {"row": 100, "map": 3e6, "rest": 5e4}, {"near": 2e4, "beside": 1e5, "far": 1e9}
    figure, sentence = assert_readable(tiles.what_fits(things, places))
    assert "In every place: row; only in the largest: map." in sentence
    axes = figure.axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == pytest.approx(list(things.values()))
    assert [line.get_xdata()[0] for line in axes.lines] == list(places.values())
    assert len({line.get_linestyle() for line in axes.lines}) == 3
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named == ["row, 100 bytes", "map, 3 MB", "rest, 50 KB"]
    named = [line.get_label() for line in axes.lines]
    assert named == ["near, 20 KB", "beside, 100 KB", "far, 1 GB"]


@pytest.mark.parametrize(
    "size, words", [(7, "7 bytes"), (999, "999 bytes"), (65536, "65.5 KB"), (80e9, "80 GB")]
)
def test_bytes_in_words(size, words):
    assert tiles.said(size) == words


def test_tiles_bear_their_turn_and_keys_their_reads():
    visits = [(0, 0), (3, 0), (3, 3), (6, 0), (6, 3), (6, 6)]
    figure, sentence = assert_readable(tiles.tile_order(8, 3, visits))
    assert "The 6 tiles" in sentence
    assert "read 3, 2, 1 times." in sentence
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == list("123456")
    boxes = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in axes.patches]
    assert boxes[1] == (0.5, 3.5, 3, 3)  # rows 4 to 6, columns 1 to 3
    assert boxes[4] == (3.5, 6.5, 3, 2)  # the last block has two rows
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["1–3\n3 ×", "4–6\n2 ×", "7–8\n1 ×"]


def bounds(box):
    return box.get_x(), box.get_y(), box.get_width(), box.get_height()


def test_blocks_beside_one_another():
    figure, sentence = assert_readable(tiles.block_steps(STATES, 8, 3, "ab"))
    assert sentence.startswith("3 steps")
    now, held = figure.axes[2].patches
    assert bounds(now) == (6.5, 6.5, 2, 2)
    assert bounds(held) == (0.5, 6.5, 6, 2)
    for block, axes in enumerate(figure.axes[3:]):
        np.testing.assert_array_equal(axes.images[0].get_array(), STATES[block])
        assert axes.images[0].norm.vmax == 4
    assert [text.get_text() for text in figure.axes[4].texts] == ["", "2.0", "3.0", ""]


def test_the_mover_goes_to_a_block():
    figure, move = tiles.block_mover(STATES, 8, 3, "ab")
    assert move(1) == "Read now: tokens 1–3; the state is empty."
    grid, table = figure.axes
    assert bounds(grid.patches[1])[2] == 0
    assert move(3) == "Read now: tokens 7–8; the state brings tokens 1–6."
    assert bounds(grid.patches[0]) == (6.5, 6.5, 2, 2)
    assert bounds(grid.patches[1]) == (0.5, 6.5, 6, 2)
    np.testing.assert_array_equal(table.images[0].get_array(), STATES[2])
    assert table.get_title() == "state after block 3"


def test_a_last_block_of_one_token():
    assert "tokens 7;" in tiles.block_mover(STATES, 7, 3, "ab")[1](3)


def test_bytes_in_multiples_of_the_least():
    figure, sentence = assert_readable(tiles.moved({"map": 3e6, "state": 1e5}, least="state"))
    assert "map 30, state 1." in sentence
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [30, 1]
    assert [text.get_text() for text in axes.texts] == ["30 ×  (3 MB)", "1 ×  (100 KB)"]
    assert axes.get_xlim()[1] > 30


def test_no_form_is_above_the_roof():
    forms = {"slow": (20.0, 10.0), "fast": (5000.0, 10.0)}
    drawn = tiles.roofline(3.0, 300.0, forms, {"seen": (20.0, 10.0, 5.0)})
    figure, sentence = assert_readable(drawn)
    assert "bends at 100 operations per byte" in sentence
    assert "Memory is the limit of slow; arithmetic that of fast." in sentence
    assert "seen 0.67." in sentence  # 4 of 2 * 3
    axes = figure.axes[0]
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
    assert points["slow"] == (2, 6)
    assert points["fast"] == (500, 300)
    assert points["measured: seen"] == (2, 4)
    roof = axes.lines[0]
    assert list(roof.get_ydata()) == pytest.approx([0.6, 300, 300])
    assert list(roof.get_xdata()) == pytest.approx([0.2, 100, 2000])
    assert_told_apart_without_colour(axes)


def test_cost_over_block_size():
    drawn = tiles.block_cost([4, 16, 64], {"work": [3.0, 2, 5]}, [4.0, 3, 9], "time (ms)")
    figure, sentence = assert_readable(drawn)
    assert "The fastest measured block has 16 rows." in sentence
    axes = figure.axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[3, 2, 5], [4, 3, 9]]
    assert axes.get_ylabel() == "time (ms)"
    assert_told_apart_without_colour(axes)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: tiles.what_fits({}, {"a": 1, "b": 2}),
        lambda: tiles.what_fits({"a": 1}, {"b": 1}),
        lambda: tiles.what_fits({"a": 0}, {"a": 1, "b": 2}),
        lambda: tiles.tile_order(8, 3, []),
        lambda: tiles.tile_order(8, 3, [(0, 9)]),
        lambda: tiles.block_steps(STATES, 9, 2, "ab"),
        lambda: tiles.block_mover(STATES, 8, 3, "abc"),
        lambda: tiles.moved({}, "a"),
        lambda: tiles.moved({"a": 1.0}, "b"),
        lambda: tiles.moved({"a": 0.0}, "a"),
        lambda: tiles.roofline(1.0, 0.0, {"a": (1, 1)}, {}),
        lambda: tiles.roofline(1.0, 1.0, {}, {}),
        lambda: tiles.roofline(1.0, 1.0, {"a": (1, 1)}, {"b": (1, 1, 0)}),
        lambda: tiles.block_cost([1, 2], {}, [1.0, 2.0], "time (s)"),
        lambda: tiles.block_cost([1, 2], {"a": [1.0]}, [1.0, 2.0], "time (s)"),
        lambda: tiles.block_cost([1], {"a": [1.0]}, [0.0], "time (s)"),
    ],
)
def test_broken_input(draw):
    with pytest.raises(ValueError, match="expected"):
        draw()
