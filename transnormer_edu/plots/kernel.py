"""Kernels: which program has which numbers, and what a chunk costs on the chip."""

import math
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from transnormer_edu.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PALE,
    Drawing,
    drawing,
    need_equal_lengths,
    new_figure,
)
from transnormer_edu.resources import REGISTER_LIMIT, SHARED_LIMIT, Resources

FILLS = (PALE, "#FFFFFF")  # programs beside each other differ in shade
KB = 1000  # as in lesson 07


@drawing
def programs(
    panels: Mapping[str, Int[Tensor, "rows cols"]],
    grid: tuple[int, int],
    tile: tuple[int, int],
    step: int | None = None,
) -> Drawing:
    """Program ids drawn over tensors: who has which cell, as the kernel itself wrote it.

    panels   title -> for each cell the number of its program, id 0 times grid[1] plus id 1; the
             panels may share the numbers of one grid
    grid     programs along axis 0 and axis 1, in one panel
    tile     rows and columns of one program; what of it lies outside the tensor is hatched
    step     rows that a program takes at a time, if it walks; an arrow says so
    Errors: ValueError for no panels, or tiles that do not cover a tensor.
    """
    if not panels:
        raise ValueError("got no panels, expected at least one tensor of program numbers")
    figure = new_figure(7.5, 3.9)
    row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    outside = 0
    for axes, (title, owner) in zip(row, panels.items(), strict=True):
        outside += _draw_programs(axes, owner, grid, tile, step)
        axes.set_title(title)
        axes.set_xlabel("column (number)")
    row[0].set_ylabel("row (number)")
    cells = sum(owner.numel() for owner in panels.values())
    count = len({int(number) for owner in panels.values() for number in owner.unique()})
    walk = f", each from top to bottom in steps of {step} rows" if step else ""
    return figure, (
        f"{count} programs share {cells:,} cells{walk}. Hatched: {outside:,} places that belong to "
        "a program and lie outside the tensor."
    )


def _draw_programs(axes: Axes, owner: Tensor, grid, tile, step) -> int:
    """One panel; gives back how many places lie outside the tensor."""
    rows, cols = owner.shape
    high, wide = grid[0] * tile[0], grid[1] * tile[1]
    if high < rows or wide < cols:
        raise ValueError(f"got tiles over {high} x {wide} cells; expected at least {rows} x {cols}")
    axes.grid(False)
    _hatch(axes, 0, rows, wide, high - rows)
    _hatch(axes, cols, 0, wide - cols, rows)
    shade = (owner // grid[1] + owner % grid[1]) % 2
    place = {"extent": (0, cols, rows, 0), "aspect": "auto", "interpolation": "none"}
    axes.imshow(shade.numpy(), cmap=ListedColormap(FILLS), vmin=0, vmax=1, **place)
    for y in range(0, high, tile[0]):
        for x in range(0, wide, tile[1]):
            axes.add_patch(Rectangle((x, y), tile[1], tile[0], fill=False, edgecolor=INK, lw=1.5))
            bottom, right = min(y + tile[0], rows), min(x + tile[1], cols)
            number = divmod(int(owner[y, x]), grid[1])
            if step:
                _walk(axes, x, right, y, bottom, step)
                _name(axes, (x + right) / 2 + 1, y + step / 2, f"{number}")
            else:
                _name(axes, (x + right) / 2, (y + bottom) / 2, f"program\n{number}")
    axes.set(xlim=(0, wide), ylim=(high, 0))
    return high * wide - rows * cols


def _walk(axes: Axes, left, right, top, bottom, step) -> None:
    """Borders of the steps, and an arrow down through them."""
    for y in range(top + step, bottom, step):
        axes.plot([left, right], [y, y], color=INK, linestyle=":", linewidth=1.2)
    x = left + 0.12 * (right - left)
    arrow = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 2.5}
    axes.annotate("", xy=(x, bottom - 0.5), xytext=(x, top + 0.5), arrowprops=arrow)


@drawing
def coverage(owners: Mapping[int, Sequence[int]]) -> Drawing:
    """Which program has which row, for several block sizes, one below the other.

    owners   block size -> the program of row 0, 1, ...
    Errors: ValueError for no block sizes, or not the same rows for each.
    """
    _check_owners(owners)
    figure = new_figure(7.5, 0.62 * len(owners) + 1.1)
    axes = figure.subplots()
    end = max(_end(block, of) for block, of in owners.items())
    for line, (block, of) in enumerate(owners.items()):
        _draw_bar(axes, line, block, of)
    axes.set_yticks(range(len(owners)), [str(block) for block in owners])
    axes.set(ylabel="block size (rows)", ylim=(len(owners) - 0.4, -0.6))
    _finish_rows(axes, end, len(next(iter(owners.values()))))
    idle = ", ".join(f"{_end(block, of) - len(of)} with {block}" for block, of in owners.items())
    return figure, (
        "Each box is a program, with its id; dashed is the end of the tensor. Places beyond it, by "
        f"rows in a block: {idle}."
    )


@drawing
def coverage_mover(block: int, lengths: Sequence[int]) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: rows and their programs, and the function that sets the number of rows.

    block     rows in a block
    lengths   the numbers of rows that the slider can set
    Errors: ValueError for a block or a length below 1.
    """
    if block < 1 or not lengths or min(lengths) < 1:
        raise ValueError(f"got block {block}, lengths {list(lengths)}; expected all at least 1")
    figure = new_figure(7.5, 1.9)
    axes = figure.subplots()
    _finish_rows(axes, -(-max(lengths) // block) * block, max(lengths))
    (border,) = axes.lines
    axes.set_yticks([])
    axes.set(ylabel="program (id)", ylim=(0.6, -0.6))

    def move(rows: float) -> str:
        for artist in [*axes.patches, *axes.texts]:
            artist.remove()
        of = [row // block for row in range(int(rows))]
        _draw_bar(axes, 0, block, of)
        border.set_xdata([rows, rows])
        count, idle = max(of) + 1, _end(block, of) - len(of)
        return (
            f"{rows:g} rows in blocks of {block}: programs {count}, places beyond the end {idle}."
        )

    return figure, move


def _check_owners(owners: Mapping[int, Sequence[int]]) -> None:
    if not owners:
        raise ValueError("got no block sizes, expected at least one with the programs of its rows")
    need_equal_lengths(**{f"block {block}": list(of) for block, of in owners.items()})


def _end(block: int, of: Sequence[int]) -> int:
    """One past the last place that belongs to a program."""
    return (max(of) + 1) * block


def _draw_bar(axes: Axes, y: int, block: int, of: Sequence[int]) -> None:
    for row, program in enumerate(of):
        corner = (row, y - 0.4)
        axes.add_patch(Rectangle(corner, 1, 0.8, facecolor=FILLS[program % 2], edgecolor="none"))
    _hatch(axes, len(of), y - 0.4, _end(block, of) - len(of), 0.8)
    for program in range(max(of) + 1):
        begin, width = program * block, block
        axes.add_patch(Rectangle((begin, y - 0.4), width, 0.8, fill=False, edgecolor=INK, lw=1.2))
        _name(axes, (begin + min(begin + width, len(of))) / 2, y, str(program))


def _finish_rows(axes: Axes, end: int, rows: int) -> None:
    axes.set(xlabel="row (number)", xlim=(-0.3, end + 0.3))
    axes.axvline(rows, color=ORANGE, linestyle="--", linewidth=2)
    axes.grid(False)


def _hatch(axes: Axes, x, y, width, height) -> None:
    if width > 0 and height > 0:
        style = {"facecolor": "none", "edgecolor": "#888888", "hatch": "////", "linewidth": 0}
        axes.add_patch(Rectangle((x, y), width, height, **style))


def _name(axes: Axes, x, y, text: str) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=10)


@drawing
def chunk_costs(found: Mapping[int, Resources], state: int) -> Drawing:
    """What a chunk costs on the chip: registers and spills of a thread, shared memory.

    found   rows in a chunk -> what the compiler says
    state   registers of a thread that the state alone takes
    Errors: ValueError for no sizes, or one that did not compile.
    """
    refused = [size for size, needs in found.items() if needs.refused]
    if not found or refused:
        raise ValueError(f"got sizes {list(found)}, refused {refused}; expected compiled ones")
    figure = new_figure(7.5, 3.6)
    left, right = figure.subplots(1, 2)
    names = [str(size) for size in found]
    registers = [needs.registers for needs in found.values()]
    spilled = [needs.spilled / 4 for needs in found.values()]  # 4 bytes are a register's
    left.bar(names, registers, color=PALE, edgecolor=INK, label="in registers")
    style = {"facecolor": "none", "edgecolor": ORANGE, "hatch": "xxx"}
    if any(spilled):
        left.bar(
            names, [x or math.nan for x in spilled], bottom=registers, label="spilled", **style
        )
    _limit(left, REGISTER_LIMIT, "all there are")
    left.axhline(state, color=ORANGE, linestyle=":", linewidth=2.5, label="the state alone")
    left.set(xlabel="chunk (rows)", ylabel="of a thread (numbers of 32 bits)")
    shared = [needs.shared / KB for needs in found.values()]
    right.bar(names, shared, color=BLUE, edgecolor=INK, width=0.6)
    _limit(right, SHARED_LIMIT / KB, "all there is")
    right.set(xlabel="chunk (rows)", ylabel="shared memory of a program (KB)")
    left.legend(loc="upper left", framealpha=1)
    left.set_ylim(0, 1.45 * max(REGISTER_LIMIT, *map(sum, zip(registers, spilled, strict=True))))
    right.set_ylim(0, 1.15 * max(SHARED_LIMIT / KB, *shared))
    return figure, _said_of_costs(found)


def _limit(axes: Axes, height: float, text: str) -> None:
    axes.axhline(height, color=INK, linestyle="--", linewidth=1.5)
    axes.text(-0.45, height, text, va="bottom", fontsize=10)


def _said_of_costs(found: Mapping[int, Resources]) -> str:
    """Which sizes fit and which do not: that holds longer than the numbers do."""
    fit = [str(size) for size, needs in found.items() if needs.fits]
    spill = [str(size) for size, needs in found.items() if needs.spilled]
    large = [str(size) for size, needs in found.items() if needs.shared > SHARED_LIMIT]
    return (
        f"Chunks of {_listed(fit)} rows fit. Registers spill with {_listed(spill)}; more shared "
        f"memory than there is: {_listed(large)}."
    )


def _listed(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "none"
