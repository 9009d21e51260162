"""Blocks, the chunks of lesson 07: in which order tiles are read, and what the state brings."""

import math
from collections.abc import Callable, Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from transnormer_edu.plots.style import BLUE, INK, PALE, SHADES, Drawing, drawing, new_figure

States = Float[Tensor, "blocks dk dv"]


@drawing
def tile_order(n: int, size: int, visits: Sequence[tuple[int, int]]) -> Drawing:
    """The n x n map cut into tiles; each visited tile bears the number of its turn.

    visits   (first row, first column) of a tile, both from 0, in the order of the visits
    Errors: ValueError for no visits, or a tile that does not begin in the map.
    """
    if not visits or not all(0 <= start < n for visit in visits for start in visit):
        raise ValueError(f"got visits {list(visits)}, expected at least one, each inside 0 to {n}")
    figure = new_figure(4.6, 4.4)
    axes = figure.subplots()
    _grid(axes, n, size)
    for turn, (row, column) in enumerate(visits, 1):
        box = _box(row, column, size, n)
        axes.add_patch(Rectangle(*box, facecolor=PALE, edgecolor=INK))
        middle = (box[0][0] + box[1] / 2, box[0][1] + box[2] / 2)
        paper = {"facecolor": PALE, "edgecolor": "none", "pad": 2}  # over the diagonal
        axes.annotate(str(turn), middle, ha="center", va="center", fontsize=13, bbox=paper)
    starts = range(0, n, size)
    reads = [sum(column == start for _, column in visits) for start in starts]
    names = [f"{_tokens(s, size, n)}\n{read} ×" for s, read in zip(starts, reads, strict=True)]
    axes.set_xticks([_box(0, start, size, n)[0][0] + _rows(start, size, n) / 2 for start in starts])
    axes.set_xticklabels(names)
    axes.set(xlabel="keys and values s (numbers), and how often read", ylabel="queries t (number)")
    return figure, (
        f"The {len(visits)} tiles in their order, row by row up to the diagonal. Keys and values "
        f"are read {', '.join(map(str, reads))} times."
    )


@drawing
def block_steps(states: States, n: int, size: int, names: Sequence[str]) -> Drawing:
    """Chunk after chunk: the tile that is read (top) and the state afterwards (bottom).

    states   after chunk 1, 2, ..., (blocks, dk, dv); n tokens in chunks of `size`
    names    of the state's rows and columns alike
    Errors: ValueError for states or names whose number does not fit.
    """
    _check_states(states, n, size, names)
    blocks = len(states)
    figure = new_figure(7.6, 4.3)
    panels = figure.subplots(2, blocks, sharey="row", squeeze=False)
    top = states.abs().max().item()
    for block in range(blocks):
        _place(_block_axes(panels[0][block], n, size), block, n, size)
        panels[0][block].set_title(f"chunk {block + 1}")
        _show_state(*_state_axes(panels[1][block], names, top), states[block])
    panels[0][0].set_ylabel("queries t (number)")
    panels[1][0].set_ylabel("state after it:\nkey (row)")
    return figure, f"{_legend(blocks)} Below, the state after each chunk."


@drawing
def block_mover(
    states: States, n: int, size: int, names: Sequence[str]
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: three moments of each chunk, and the function that goes to moment 1, 2, ...

    First its own tile is computed, then the state of before is read, then the state is updated.
    Errors: as `block_steps`.
    """
    _check_states(states, n, size, names)
    figure = new_figure(7.4, 3.7)
    left, right = figure.subplots(1, 2)
    boxes = _block_axes(left, n, size)
    table = _state_axes(right, names, states.abs().max().item())
    left.set_ylabel("queries t (number)")
    right.set_ylabel("key (row)")
    heading = left.set_title("tiles of the map")
    title = right.set_title("state")
    held = [states[0] * 0, *states]  # before any chunk, after chunk 1, 2, ...

    def move(position: float) -> str:
        block, moment = divmod(int(position) - 1, 3)
        _place(boxes, block, n, size)
        boxes[1].set_visible(moment > 0)
        after = block + (moment == 2)
        _show_state(*table, held[after])
        heading.set_text(f"tiles of the map, chunk {block + 1}")
        title.set_text(f"state after chunk {after}" if after else "state, still empty")
        return _moment(moment, block, n, size)

    return figure, move


def _moment(moment: int, block: int, n: int, size: int) -> str:
    rows = _rows(block * size, size, n)
    own = f"token{'s' * (rows > 1)} {_tokens(block * size, size, n)}"
    past = f"tokens 1–{block * size}" if block else "nothing"
    return (
        f"Loaded: {own}. Their own tile is computed.",
        f"The state brings {past} to the same rows, and their outputs are stored.",
        f"The state fades by {rows} step{'s' * (rows > 1)} and takes in {own}.",
    )[moment]


def _legend(blocks: int) -> str:
    return (
        f"{blocks} steps, each left to right: the dark tile on the diagonal is read and computed; "
        "hatched is what the state brings, without being read again."
    )


def _rows(start: int, size: int, n: int) -> int:
    return min(size, n - start)


def _tokens(start: int, size: int, n: int) -> str:
    last = start + _rows(start, size, n)
    return f"{start + 1}–{last}" if last > start + 1 else f"{last}"


def _box(row: int, column: int, size: int, n: int) -> tuple:
    """Corner, width, height of a tile, in tokens numbered from 1, each one unit wide."""
    return (column + 0.5, row + 0.5), _rows(column, size, n), _rows(row, size, n)


def _grid(axes: Axes, n: int, size: int) -> None:
    """An empty map of n x n tokens, with the borders of its tiles and its diagonal."""
    for border in range(size, n, size):
        axes.axhline(border + 0.5, color="#BBBBBB", linewidth=1)
        axes.axvline(border + 0.5, color="#BBBBBB", linewidth=1)
    axes.plot([0.5, n + 0.5], [0.5, n + 0.5], color=INK, linewidth=1)
    axes.set(xlim=(0.5, n + 0.5), ylim=(n + 0.5, 0.5), aspect="equal")
    ticks = [start + 1 for start in range(0, n, size)]
    axes.set_yticks(ticks)
    axes.set_xticks(ticks)
    axes.grid(False)


def _block_axes(axes: Axes, n: int, size: int) -> tuple[Rectangle, Rectangle]:
    """The map, and its two boxes: what is read now, and what the state stands for."""
    _grid(axes, n, size)
    axes.set_xlabel("keys s (number)")
    now = Rectangle((0, 0), 1, 1, facecolor=BLUE, edgecolor=INK)
    held = Rectangle((0, 0), 1, 1, facecolor=PALE, edgecolor=INK, hatch="///")
    for box in (now, held):
        axes.add_patch(box)
    return now, held


def _place(boxes: tuple[Rectangle, Rectangle], block: int, n: int, size: int) -> None:
    now, held = boxes
    start = block * size
    corner, width, height = _box(start, start, size, n)
    now.set_bounds(*corner, width, height)
    held.set_bounds(0.5, corner[1], start, height)


def _state_axes(axes: Axes, names: Sequence[str], top: float) -> tuple:
    """An empty table of shades, with places for its numbers: (image, texts)."""
    image = axes.imshow([[0.0] * len(names)] * len(names), cmap=SHADES, vmin=0, vmax=top)
    axes.set_xticks(range(len(names)), list(names))
    axes.set_yticks(range(len(names)), list(names))
    axes.set_xlabel("value (column)")
    axes.grid(False)
    cells = [(i, j) for i in range(len(names)) for j in range(len(names))]
    return image, [axes.text(j, i, "", ha="center", va="center", fontsize=9) for i, j in cells]


def _show_state(image, texts: Sequence, state: Float[Tensor, "dk dv"]) -> None:
    image.set_data(state.numpy())
    for text, value in zip(texts, state.flatten().tolist(), strict=True):
        text.set_text(f"{value:.1f}" if value >= 0.05 else "")
        text.set_color("white" if value > image.norm.vmax / 2 else INK)


def _check_states(states: States, n: int, size: int, names: Sequence[str]) -> None:
    wanted = (math.ceil(n / size), len(names), len(names))
    if tuple(states.shape) != wanted:
        raise ValueError(
            f"got states {tuple(states.shape)} for {n} tokens in chunks of {size} and "
            f"{len(names)} names; expected {wanted}"
        )
