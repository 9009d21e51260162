"""Tiles: what fits where, what moves, and what that does to the speed."""

import math
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from transnormer_edu.plots.style import (
    BLUE,
    INK,
    LINES,
    ORANGE,
    PALE,
    SHADES,
    Drawing,
    drawing,
    need_equal_lengths,
    need_few,
    new_figure,
)

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1, "bytes"))
States = Float[Tensor, "blocks dk dv"]


@drawing
def what_fits(things: Mapping[str, float], places: Mapping[str, float]) -> Drawing:
    """Sizes of things as bars, sizes of places as vertical lines: what ends left of a line fits.

    things, places   name -> bytes, above 0
    Errors: ValueError for no things, fewer than two places, or a size that is not above 0.
    """
    _need_positive(**things)
    _need_positive(**places)
    if len(places) < 2:
        raise ValueError(f"got {len(places)} place, expected at least two to compare")
    figure = new_figure(height=1.6 + 0.36 * len(things))
    axes = figure.subplots()
    least = min(things.values()) / 10
    for row, size in enumerate(things.values()):
        axes.barh(row, size - least, left=least, height=0.55, color=PALE, edgecolor=INK)
    for (name, size), dash in zip(places.items(), ("-", "--", "-.", ":") * 9, strict=False):
        axes.axvline(size, color=ORANGE, linestyle=dash, label=f"{name}, {said(size)}", zorder=1.5)
    named = [f"{name}, {said(size)}" for name, size in things.items()]
    axes.set_yticks(range(len(things)), named)
    axes.set(xscale="log", xlabel="size (bytes)", ylabel="thing (name)")
    axes.set(ylim=(len(things) - 0.5, -0.5), xlim=(least, 8 * max(places.values())))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    near = [name for name, size in things.items() if size <= min(places.values())]
    far = [name for name, size in things.items() if size > sorted(places.values())[-2]]
    return figure, (
        f"What ends to the left of a line fits there. In every place: {', '.join(near)}; only in "
        f"the largest: {', '.join(far)}."
    )


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
    """Chunk after block: the tile that is read (top) and the state afterwards (bottom).

    states   after block 1, 2, ..., (blocks, dk, dv); n tokens in blocks of `size`
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
        panels[0][block].set_title(f"block {block + 1}")
        _show_state(*_state_axes(panels[1][block], names, top), states[block])
    panels[0][0].set_ylabel("queries t (number)")
    panels[1][0].set_ylabel("state after it:\nkey (row)")
    return figure, f"{_legend(blocks)} Below, the state after each block."


@drawing
def block_mover(
    states: States, n: int, size: int, names: Sequence[str]
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: one step of `block_steps`, and the function that shows block 1, 2, ...

    Errors: as `block_steps`.
    """
    _check_states(states, n, size, names)
    figure = new_figure(7.4, 3.7)
    left, right = figure.subplots(1, 2)
    boxes = _block_axes(left, n, size)
    table = _state_axes(right, names, states.abs().max().item())
    left.set_ylabel("queries t (number)")
    right.set_ylabel("key (row)")
    left.set_title("tiles of the map")
    title = right.set_title("state after block 1")

    def move(position: float) -> str:
        block = int(position) - 1
        _place(boxes, block, n, size)
        _show_state(*table, states[block])
        title.set_text(f"state after block {block + 1}")
        before = f"the state brings tokens 1–{block * size}" if block else "the state is empty"
        return f"Read now: tokens {_tokens(block * size, size, n)}; {before}."

    return figure, move


@drawing
def moved(forms: Mapping[str, float], least: str) -> Drawing:
    """Bytes that each form moves, in multiples of what the form named `least` moves.

    Errors: ValueError for no forms, bytes not above 0, or a name that is not among them.
    """
    _need_positive(**forms)
    if least not in forms:
        raise ValueError(f"got least {least!r}, expected one of {', '.join(forms)}")
    figure = new_figure(height=1.0 + 0.45 * len(forms))
    axes = figure.subplots()
    times = {name: size / forms[least] for name, size in forms.items()}
    for row, (name, factor) in enumerate(times.items()):
        axes.barh(row, factor, height=0.55, color=PALE, edgecolor=INK)
        axes.annotate(
            f"{factor:.3g} ×  ({said(forms[name])})", (factor, row), (8, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axes.axvline(1, color=INK, linestyle="--")
    axes.set_yticks(range(len(forms)), list(forms))
    axes.set(xlabel="moved, in multiples of the least (1)", ylabel="form (name)")
    axes.set(ylim=(len(forms) - 0.5, -0.5), xlim=(0, 1.3 * max(times.values())))
    listed = ", ".join(f"{name} {factor:.3g}" for name, factor in times.items())
    return figure, f"Bytes moved, in multiples of the least possible: {listed}."


@drawing
def roofline(
    bandwidth: float,
    peak: float,
    forms: Mapping[str, tuple[float, float]],
    measured: Mapping[str, tuple[float, float, float]],
) -> Drawing:
    """Speed over arithmetic intensity: no point can lie above min(intensity * bandwidth, peak).

    bandwidth   bytes per second; peak: operations per second
    forms       name -> (operations, bytes): filled, drawn on the roof
    measured    name -> (operations, bytes, seconds): hollow, drawn where it was seen
    Errors: ValueError for no forms, or a number that is not above 0.
    """
    _need_positive(bandwidth=bandwidth, peak=peak)
    if not forms:
        raise ValueError("got no forms, expected at least one with its operations and bytes")
    for name, numbers in (*forms.items(), *measured.items()):
        _need_positive(**{name: min(numbers)})
    figure = new_figure(7.6, 4.6)
    axes = figure.subplots()
    bend = peak / bandwidth
    _roof(axes, bandwidth, peak)
    for (name, (work, moves)), look in zip(forms.items(), LINES * len(forms), strict=False):
        mark = {"color": look["color"], "marker": look["marker"], "linestyle": ""}
        speed = min(work / moves * bandwidth, peak)
        axes.plot(work / moves, speed, label=name, markersize=9, **mark)
    hollow = {"color": INK, "markerfacecolor": "none", "markeredgewidth": 2, "linestyle": ""}
    for (name, (work, moves, time)), mark in zip(
        measured.items(), "Dvp*" * len(measured), strict=False
    ):
        label = f"measured: {name}"
        axes.plot(work / moves, work / time, marker=mark, markersize=11, label=label, **hollow)
    axes.legend(loc="upper left")
    slow = [name for name, (work, moves) in forms.items() if work / moves < bend]
    fast = [name for name in forms if name not in slow]
    reached = ", ".join(
        f"{name} {work / time / min(work / moves * bandwidth, peak):.2f}"
        for name, (work, moves, time) in measured.items()
    )
    return figure, (
        f"The roof bends at {bend:.0f} operations per byte. Memory is the limit of "
        f"{', '.join(slow) or 'none'}; arithmetic that of {', '.join(fast) or 'none'}. Measured, "
        f"as a share of the roof above: {reached or 'none'}."
    )


def _roof(axes: Axes, bandwidth: float, peak: float) -> None:
    bend = peak / bandwidth
    low, high = 0.2, 20 * bend
    axes.plot([low, bend, high], [low * bandwidth, peak, peak], color=INK, zorder=1)
    axes.axvline(bend, color=INK, linestyle=":", linewidth=1, zorder=1)
    axes.annotate(f"bend: {bend:.0f}", (bend, low * bandwidth), (4, 4), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low * bandwidth, 5 * peak))
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.set(xlabel="arithmetic intensity (operations per byte)", ylabel="speed (operations per s)")


@drawing
def block_cost(
    blocks: Sequence[int],
    predicted: Mapping[str, Sequence[float]],
    measured: Sequence[float],
    unit: str,
) -> Drawing:
    """Cost over the size of a block: predicted curves and measured points, axes logarithmic.

    predicted   name -> cost at each block size; measured: the same, seen; unit: as in "time (ms)"
    Errors: ValueError for series of unequal length, none or too many, or a cost not above 0.
    """
    need_few("predictions", predicted)
    need_equal_lengths(blocks=blocks, measured=measured, **predicted)
    _need_positive(measured=min(measured), predicted=min(map(min, predicted.values())))
    figure = new_figure(height=3.8)
    axes = figure.subplots()
    for (name, values), look in zip(predicted.items(), LINES, strict=False):
        axes.plot(blocks, values, label=name, **look | {"marker": ""})
    axes.plot(
        blocks, measured, "o", color=INK, markersize=8, markerfacecolor="none", label="measured"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(blocks, [str(block) for block in blocks])
    axes.minorticks_off()
    axes.set(xlabel="rows of a block, B (tokens)", ylabel=unit)
    axes.legend(loc="upper center")
    best = blocks[min(range(len(blocks)), key=lambda i: measured[i])]
    return figure, f"Lines: predicted; rings: measured. The fastest measured block has {best} rows."


def said(size: float) -> str:
    """A number of bytes in the largest unit that leaves at least 1: 65536 is '65.5 KB'."""
    unit, name = next(pair for pair in UNITS if size >= pair[0] or pair[0] == 1)
    return f"{size / unit:.3g} {name}"


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
            f"got states {tuple(states.shape)} for {n} tokens in blocks of {size} and "
            f"{len(names)} names; expected {wanted}"
        )


def _need_positive(**numbers: float) -> None:
    if not numbers or min(numbers.values()) <= 0:
        raise ValueError(f"got {numbers or 'nothing'}, expected at least one, all above 0")
