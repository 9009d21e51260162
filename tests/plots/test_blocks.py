import numpy as np
import pytest
import torch

from tests.plots.checks import assert_readable
from transnormer_edu.plots import blocks

STATES = torch.tensor([[[0.0, 1], [0, 0]], [[0, 2], [3, 0.01]], [[4, 0.5], [0, 1]]])


def test_tiles_bear_their_turn_and_keys_their_reads():
    visits = [(0, 0), (3, 0), (3, 3), (6, 0), (6, 3), (6, 6)]
    figure, sentence = assert_readable(blocks.tile_order(8, 3, visits))
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
    figure, sentence = assert_readable(blocks.block_steps(STATES, 8, 3, "ab"))
    assert sentence.startswith("3 steps")
    now, held = figure.axes[2].patches
    assert bounds(now) == (6.5, 6.5, 2, 2)
    assert bounds(held) == (0.5, 6.5, 6, 2)
    for block, axes in enumerate(figure.axes[3:]):
        np.testing.assert_array_equal(axes.images[0].get_array(), STATES[block])
        assert axes.images[0].norm.vmax == 4
    assert [text.get_text() for text in figure.axes[4].texts] == ["", "2.0", "3.0", ""]


def test_the_mover_starts_without_a_state():
    figure, move = blocks.block_mover(STATES, 8, 3, "ab")
    assert move(1) == "Loaded: tokens 1–3. Their own tile is computed."
    table = figure.axes[1]
    assert table.get_title() == "state, still empty"
    assert not table.images[0].get_array().any()
    assert "The state brings nothing to the same rows" in move(2)
    assert bounds(figure.axes[0].patches[1])[2] == 0


def test_the_mover_goes_through_a_chunk():
    figure, move = blocks.block_mover(STATES, 8, 3, "ab")
    grid, table = figure.axes
    now, held = grid.patches
    seen = []
    for moment in (7, 8, 9):  # the last chunk, of two tokens
        seen.append((move(moment), held.get_visible(), table.get_title()))
        assert bounds(now) == (6.5, 6.5, 2, 2)
        np.testing.assert_array_equal(table.images[0].get_array(), STATES[1 if moment < 9 else 2])
    assert grid.get_title() == "tiles of the map, chunk 3"
    assert bounds(held) == (0.5, 6.5, 6, 2)
    assert seen == [
        ("Loaded: tokens 7–8. Their own tile is computed.", False, "state after chunk 2"),
        (
            "The state brings tokens 1–6 to the same rows, and their outputs are stored.",
            True,
            "state after chunk 2",
        ),
        ("The state fades by 2 steps and takes in tokens 7–8.", True, "state after chunk 3"),
    ]


def test_a_last_chunk_of_one_token():
    move = blocks.block_mover(STATES, 7, 3, "ab")[1]
    assert move(9) == "The state fades by 1 step and takes in token 7."


@pytest.mark.parametrize(
    "draw",
    [
        lambda: blocks.tile_order(8, 3, []),
        lambda: blocks.tile_order(8, 3, [(0, 9)]),
        lambda: blocks.block_steps(STATES, 9, 2, "ab"),
        lambda: blocks.block_mover(STATES, 8, 3, "abc"),
    ],
)
def test_broken_input(draw):
    with pytest.raises(ValueError, match="expected"):
        draw()
