"""A model on many GPUs: how the work is cut, and what each of them holds."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from transnormer_edu.plots.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PINK,
    Drawing,
    drawing,
    new_figure,
)

# Each part's fill and hatch: told apart also in grey.
LOOKS = ((INK, ""), (PALE, ""), (BLUE, ""), (ORANGE, "//"), (GREEN, "xx"), (PINK, ".."))
FIRST, SECOND = (BLUE, ""), (PALE, "//")

Parts = Mapping[str, Mapping[str, float]]


@drawing
def three_cuts(texts: int, tokens: int, heads: int) -> Drawing:
    """Who of two has which texts, tokens and heads: a panel for each of three ways to cut.

    Errors: ValueError for an odd number of any: it could not be halved.
    """
    sizes = {"texts": texts, "tokens": tokens, "heads": heads}
    for name, size in sizes.items():
        if size < 2 or size % 2:
            raise ValueError(f"got {size} {name}, expected an even number that can be halved")
    figure = new_figure(7.5, 3.5)
    panels = figure.subplots(1, 3)
    cuts = {"data": "texts", "sequence": "tokens", "tensor": "heads"}
    for axes, (way, halved) in zip(panels, cuts.items(), strict=True):
        axes.set_title(f"{way} parallel")
        axes.set_axis_off()
        axes.set(xlim=(-1.2, tokens + 1.2), ylim=(texts + heads + 2.4, -0.8), aspect="equal")
        _grid(axes, 0, tokens, texts, halved)
        _grid(axes, texts + 1.6, tokens, heads, halved, weights=True)
    for top, name in ((texts / 2, "texts"), (texts + 1.6 + heads / 2, "heads")):
        panels[0].text(-0.4, top, name, rotation=90, va="center", ha="right")
    for axes in panels:
        axes.text(tokens / 2, texts + 0.7, "tokens", va="center", ha="center")
        axes.text(tokens / 2, texts + heads + 2.2, "weights", va="center", ha="center")
    names = {"first process": FIRST, "second process": SECOND, "both": ("white", "")}
    boxes = [Patch(facecolor=c, hatch=h, edgecolor=INK, label=x) for x, (c, h) in names.items()]
    figure.legend(handles=boxes, loc="outside lower center", ncols=3)
    return figure, (
        f"Of {texts} texts of {tokens} tokens each process has: data parallel, {texts // 2} whole "
        f"texts; sequence parallel, {tokens // 2} tokens of every text; tensor parallel, all "
        f"texts, but {heads // 2} of {heads} heads and their weights."
    )


def _grid(axes: Axes, top: float, columns: int, rows: int, halved: str, weights=False) -> None:
    """Cells, each in the colours of the process that has it; of weights a row for each head."""
    for row in range(rows):
        for column in range(columns):
            if weights:
                owner = _half(row, rows) if halved == "heads" else None
            elif halved == "heads":
                owner = None
            else:
                owner = _half(row, rows) if halved == "texts" else _half(column, columns)
            face, hatch = ("white", "") if owner is None else (FIRST, SECOND)[owner]
            box = Rectangle((column, top + row), 1, 1, facecolor=face, hatch=hatch, edgecolor=INK)
            axes.add_patch(box)


def _half(place: int, size: int) -> int:
    return int(place >= size // 2)


@drawing
def memory_by_parts(columns: Parts, limit: float, label: str) -> Drawing:
    """Memory of one GPU in GB, piled up by part: a bar for each column, and what a GPU has.

    columns   name -> part -> bytes; limit: bytes of a GPU; label: what the columns are, with unit
    Errors: ValueError for no columns, or parts that differ from one to the next.
    """
    _check_parts(columns)
    figure = new_figure(7.5, 4)
    axes = figure.subplots()
    _pile(axes, columns)
    axes.axhline(limit / 1e9, color=INK, linestyle="--")
    axes.annotate(f"{limit / 1e9:g} GB", (len(columns) - 0.5, limit / 1e9), va="bottom", ha="right")
    axes.set(xlabel=label, ylabel="held by one GPU (GB)")
    axes.set_ylim(top=1.05 * max(limit / 1e9, *(sum(c.values()) / 1e9 for c in columns.values())))
    figure.legend(loc="outside upper center", ncols=3)
    said = ", ".join(f"{name}: {sum(parts.values()) / 1e9:,.0f}" for name, parts in columns.items())
    fits = [name for name, parts in columns.items() if sum(parts.values()) <= limit]
    there = f"It fits at {', '.join(fits)}." if fits else "It fits nowhere."
    return figure, f"GB on one GPU: {said}. {there}"


@drawing
def memory_by_parts_mover(
    columns: Mapping[float, Mapping[str, float]], limit: float
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: the parts of one column as bars beside each other, and the setter of it."""
    _check_parts(columns)
    parts = list(next(iter(columns.values())))
    figure = new_figure(6.4, 3)
    axes = figure.subplots()
    bars = axes.barh(parts, [0] * len(parts), edgecolor=INK)
    for bar, (colour, hatch) in zip(bars, LOOKS, strict=False):
        bar.set(facecolor=colour, hatch=hatch)
    most = max(max(column.values()) for column in columns.values()) / 1e9
    axes.set(xlabel="held by one GPU (GB)", xlim=(0, 1.05 * max(most, limit / 1e9)))
    axes.axvline(limit / 1e9, color=INK, linestyle="--")
    axes.invert_yaxis()

    def move(where: float) -> str:
        for bar, size in zip(bars, columns[where].values(), strict=True):
            bar.set_width(size / 1e9)
        total = sum(columns[where].values())
        fits = "fits" if total <= limit else "does not fit"
        return f"{where:,}: {total / 1e9:,.1f} GB together, which {fits} into {limit / 1e9:g} GB."

    return figure, move


def _pile(axes: Axes, columns: Parts) -> None:
    names = list(columns)
    below = [0.0] * len(names)
    for part, (colour, hatch) in zip(columns[names[0]], LOOKS, strict=False):
        sizes = [columns[name][part] / 1e9 for name in names]
        axes.bar(names, sizes, bottom=below, color=colour, hatch=hatch, edgecolor=INK, label=part)
        below = [a + b for a, b in zip(below, sizes, strict=True)]


def _check_parts(columns: Mapping[object, Mapping[str, float]]) -> None:
    kinds: Sequence = [tuple(parts) for parts in columns.values()]
    if not kinds or len(set(kinds)) > 1 or not 1 <= len(kinds[0]) <= len(LOOKS):
        raise ValueError(
            f"got parts {sorted(set(kinds))}; expected at least one column, and the same 1 to "
            f"{len(LOOKS)} parts in each"
        )
