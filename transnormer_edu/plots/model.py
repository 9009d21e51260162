"""A whole model as pictures: the tree of its modules, where its parameters and its memory are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from transnormer_edu.plots.style import (
    BLUE,
    GREEN,
    INK,
    LINES,
    ORANGE,
    PALE,
    Drawing,
    drawing,
    need_equal_lengths,
    need_few,
    new_figure,
)

LOOKS = ((BLUE, ""), (ORANGE, "///"), (GREEN, "..."))
BORDER = 0.2  # below what a box of the tree holds, in rows
GPU_GB = 80  # the memory of the H100 that the course measures on
TOGETHER = "training, together"

Parts = Mapping[int, Mapping[str, float]]


class Row(NamedTuple):
    """A module, or several equal ones that follow one another in a list."""

    depth: int
    name: str
    kind: str
    shape: str
    parameters: int  # of one of them
    copies: int


@drawing
def module_tree(model: nn.Module) -> Drawing:
    """Every module of `model` in a box inside the box of the one it belongs to, top to bottom.

    At the right its weight's shape, or its parameters; equal neighbours in a list are drawn once.
    """
    rows = tree_rows(model)
    boxes = sum(after.depth > row.depth for row, after in pairwise(rows))
    height = len(rows) + BORDER * boxes
    figure = new_figure(7.5, 0.25 * height)
    axes = figure.subplots()
    _draw_box(axes, rows, 0, 0)
    axes.set(xlim=(-0.05, 10.05), ylim=(height + 0.05, -0.05))
    axes.set_axis_off()
    folded = [row for row in rows if row.copies > 1]
    said = "".join(f" {row.name}: {row.copies} equal ones, drawn once." for row in folded)
    total = sum(parameter.numel() for parameter in model.parameters())
    return figure, f"{rows[0].name}: {len(rows)} boxes, {total:,} parameters.{said}"


def tree_rows(model: nn.Module) -> list[Row]:
    """The modules in the order of `named_modules`, equal neighbours in a list as one row."""
    modules = dict(model.named_modules())
    folded = dict(_folds(modules))
    rows, skipped = [], ()
    for path, module in modules.items():
        if skipped and f"{path}.".startswith(skipped):
            continue
        stem, copies = path[: path.rfind(".") + 1], folded.get(path, 1)
        name = path[len(stem) :]
        if copies > 1:
            others = range(int(name) + 1, int(name) + copies)
            skipped += tuple(f"{stem}{i}." for i in others)
            name = f"{name}–{others[-1]}"
        rows.append(_row(path, name, module, copies))
    return rows


@drawing
def shares(parameters: Mapping[str, Mapping[str, int]]) -> Drawing:
    """What part of each model's parameters lies where: a bar of 100 % for each model.

    parameters    model -> part -> count; the same parts, at most three, for all. The sentence
                  says it of the first and the last model.
    Errors: ValueError for no models, or parts that differ.
    """
    parts = list(next(iter(parameters.values()), ()))
    if not 1 <= len(parts) <= len(LOOKS) or any(list(p) != parts for p in parameters.values()):
        raise ValueError(f"expected the same 1 to {len(LOOKS)} parts for at least one model")
    figure = new_figure(height=1.2 + 0.36 * len(parameters))
    axes = figure.subplots()
    totals = [sum(counts.values()) for counts in parameters.values()]
    left = [0.0] * len(totals)
    for part, (color, hatch) in zip(parts, LOOKS, strict=False):
        counts = [model[part] for model in parameters.values()]
        width = [100 * count / total for count, total in zip(counts, totals, strict=True)]
        look = {"color": color, "hatch": hatch, "edgecolor": INK}
        axes.barh(list(parameters), width, left=left, label=part, **look)
        left = [start + more for start, more in zip(left, width, strict=True)]
    for y, total in enumerate(totals):
        axes.annotate(short(total), (100, y), (5, 0), textcoords="offset points", va="center")
    axes.set(xlabel="share of the parameters (%)", ylabel="model (name)", xlim=(0, 112))
    axes.set_xticks(range(0, 101, 20))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(parts))
    ends = {name: parameters[name] for name in (next(iter(parameters)), next(reversed(parameters)))}
    return figure, f"{'; '.join(map(_said, ends, ends.values()))}."


@drawing
def loss_after_blocks(losses: Mapping[str, Sequence[float]], chance: float) -> Drawing:
    """Loss of the head put after 0, 1, 2, ... blocks, in nats, beside that of blind guessing.

    Errors: ValueError for no model or too many, or one without losses.
    """
    if not 1 <= len(losses) <= len(LINES) or not all(losses.values()):
        raise ValueError(f"expected 1 to {len(LINES)} models, each with losses")
    figure = new_figure(height=3.5)
    axes = figure.subplots()
    axes.axhline(chance, color=INK, linestyle=":", linewidth=1.5, label="ln V: blind guessing")
    for (name, values), line in zip(losses.items(), LINES, strict=False):
        axes.plot(range(len(values)), values, label=name, **line)
    longest = max(map(len, losses.values()))
    axes.set_xticks(range(longest))
    axes.set(xlabel="head put after block (number)", ylabel="loss (nats per token)", ylim=(0, None))
    axes.legend()
    ends = (f"{name} from {v[0]:.1f} to {v[-1]:.1f}" for name, v in losses.items())
    return figure, f"From no block to the last: {'; '.join(ends)}. ln V is {chance:.1f}."


@drawing
def over_context(
    lengths: Sequence[int], costs: Mapping[str, Sequence[float]], unit: str
) -> Drawing:
    """Costs over the length of the text, both axes logarithmic.

    costs    name -> cost at each length; unit: what they are, with its unit
    Errors: ValueError for no costs, too many, unequal lengths, or a cost that is not above 0.
    """
    need_few("costs", costs)
    need_equal_lengths(lengths=lengths, **costs)
    if min(min(values) for values in (lengths, *costs.values())) <= 0:
        raise ValueError("expected every length and every cost above 0")
    figure = new_figure(height=3.6)
    axes = figure.subplots()
    for (name, values), line in zip(costs.items(), LINES, strict=False):
        axes.loglog(lengths, values, label=name, **line)
    axes.set(xlabel="length of the text (tokens)", ylabel=unit)
    axes.legend(loc="upper left")
    grown = (f"{name} × {_factor(values[-1] / values[0])}" for name, values in costs.items())
    return figure, f"From {lengths[0]:,} to {lengths[-1]:,} tokens: {'; '.join(grown)}."


@drawing
def memory(training: Parts, writing: Parts) -> Drawing:
    """Memory by part, in bytes, one panel for each length of the text, beside one GPU's.

    training   tokens -> part -> bytes; a bar below them holds their sum
    writing    the same for other parts, which are not needed at the same time
    Errors: ValueError for no lengths, or more than three, or lengths or parts that differ.
    """
    if not 1 <= len(training) <= 3:
        raise ValueError(f"got {len(training)} lengths, expected 1 to 3")
    _need_equal_parts(training, writing)
    bars = _memory_rows(training, writing)
    figure = new_figure(7.6, 1.5 + 0.36 * len(bars))
    panels = figure.subplots(1, len(training), sharex=True, sharey=True, squeeze=False)[0]
    for axes, n in zip(panels, training, strict=True):
        _memory_bars(axes, training, writing)(n)
        axes.set_title(f"{n:,} tokens")
    panels[0].set_ylabel("part (name)")
    said = (f"{n:,} tokens: {_training_said(one)}" for n, one in training.items())
    return figure, f"{'; '.join(said)}. Dotted: one GPU of {GPU_GB} GB."


@drawing
def memory_mover(training: Parts, writing: Parts) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: one panel of `memory`, and the function that sets the length of the text."""
    _need_equal_parts(training, writing)
    figure = new_figure(6.5, 1.4 + 0.36 * len(_memory_rows(training, writing)))
    axes = figure.subplots()
    fill = _memory_bars(axes, training, writing)
    axes.set_ylabel("part (name)")

    def move(n: float) -> str:
        fill(int(n))
        return f"{int(n):,} tokens: {_training_said(training[int(n)])}."

    return figure, move


def short(count: float) -> str:
    """398984192 -> 399M, 6836719616 -> 6.84B."""
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"


def gigabytes(count: float) -> str:
    """1.7e11 bytes -> 170, 6.54e9 -> 6.5: two digits, or whole GB."""
    return f"{count / 1e9:,.0f}" if count >= 1e11 else f"{count / 1e9:.2g}"


def _factor(ratio: float) -> str:
    """Two digits, or from a hundred on all that stand before the point."""
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}"


def _folds(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, int]]:
    """Name of the first of some equal neighbours in a list, and how many they are."""
    for name, module in modules.items():
        if isinstance(module, nn.ModuleList):
            looks = [_look(child) for child in module]
            starts = [i for i, look in enumerate(looks) if i == 0 or look != looks[i - 1]]
            for i, end in zip(starts, [*starts[1:], len(looks)], strict=True):
                yield f"{name}.{i}" if name else str(i), end - i


def _look(module: nn.Module) -> tuple:
    """What is drawn of a module: kinds and shapes, of itself and of all it holds."""
    kinds = tuple((name, type(part).__name__) for name, part in module.named_modules())
    return kinds, tuple((name, tuple(p.shape)) for name, p in module.named_parameters())


def _row(path: str, name: str, module: nn.Module, copies: int) -> Row:
    shapes = [tuple(p.shape) for p in module.parameters(recurse=False)]
    kind = type(module).__name__
    return Row(
        depth=path.count(".") + 1 if path else 0,
        name=name or kind,
        kind="" if not path or kind.startswith("Module") else kind,
        shape=", ".join(" × ".join(map(str, shape)) for shape in shapes),
        parameters=sum(p.numel() for p in module.parameters()),
        copies=copies,
    )


def _draw_box(axes: Axes, rows: Sequence[Row], index: int, top: float) -> tuple[int, float]:
    """The box of a row with all that is inside it; gives the row after it, and where that begins.

    A row is 1 high; a box that holds others has a border of its own below them.
    """
    row, after, bottom = rows[index], index + 1, top + 1
    while after < len(rows) and rows[after].depth > row.depth:
        after, bottom = _draw_box(axes, rows, after, bottom)
    inside = after > index + 1
    bottom += BORDER * inside
    indent = 0.28 * row.depth
    look = {"edgecolor": INK if inside else "#777777", "linewidth": 1 if inside else 0.6}
    look |= {"facecolor": "white" if inside or not row.parameters else PALE, "zorder": row.depth}
    box = (indent, top + 0.08), 10 - 2 * indent, bottom - top - 0.16
    axes.add_patch(Rectangle(*box, **look))
    _write_row(axes, row, indent, top + 0.5, "bold" if inside else "normal")
    return after, bottom


def _write_row(axes: Axes, row: Row, indent: float, y: float, weight: str) -> None:
    """Name, kind, shape and parameters."""
    text = {"va": "center", "fontsize": 9.5, "zorder": 100}
    axes.text(indent + 0.15, y, row.name, fontweight=weight, **text)
    axes.text(3.9, y, row.kind, fontstyle="italic", **text)
    axes.text(7.2, y, row.shape, ha="right", **text)
    times = f"{row.copies} × " if row.copies > 1 else ""
    count = f"{times}{row.parameters:,}" if row.parameters else "nothing learned"
    axes.text(9.85 - indent, y, count, ha="right", **text)


def _said(name: str, counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return f"{name}: " + ", ".join(
        f"{part} {100 * count / total:.1f} %" for part, count in counts.items()
    )


def _memory_rows(training: Parts, writing: Parts) -> dict[str, float]:
    """Name of each bar -> its place from above; the two groups stand apart."""
    train, write = (list(next(iter(parts.values()))) for parts in (training, writing))
    above = [*train, TOGETHER]
    return {name: float(place) for place, name in enumerate(above)} | {
        name: len(above) + 0.6 + place for place, name in enumerate(write)
    }


def _memory_bars(axes: Axes, training: Parts, writing: Parts) -> Callable[[int], None]:
    """Bars on a logarithmic axis; gives the function that sets them to a length of the text."""
    rows = _memory_rows(training, writing)
    highest = max(sum(one.values()) for one in (*training.values(), *writing.values())) / 1e9
    low, high = 0.01, 200 * highest  # room for the number behind the longest bar
    places = list(rows.values())
    bars = axes.barh(places, [low] * len(rows), color=BLUE, edgecolor=INK)
    bars[list(rows).index(TOGETHER)].set(facecolor=ORANGE, hatch="///")
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    labels = [axes.text(low, y, "", va="center", bbox=paper) for y in places]
    axes.axvline(GPU_GB, color=INK, linestyle=":", zorder=0)
    axes.set(xscale="log", xlim=(low, high), xlabel="memory (GB)", ylim=(places[-1] + 0.5, -0.5))
    axes.set_yticks(places, list(rows))
    axes.minorticks_off()  # eight decades of them: a sixth of the time of a slider's move

    def fill(n: int) -> None:
        together = sum(training[n].values())
        values = [*training[n].values(), together, *writing[n].values()]
        for bar, label, value in zip(bars, labels, values, strict=True):
            bar.set_width(value / 1e9)
            label.set(x=1.3 * max(value / 1e9, low), text=gigabytes(value))

    return fill


def _training_said(one: Mapping[str, float]) -> str:
    part, together = max(one, key=lambda name: one[name]), sum(one.values())
    return f"training takes {gigabytes(together)} GB, most of it in {part}"


def _need_equal_parts(training: Parts, writing: Parts) -> None:
    kinds = [{tuple(one) for one in parts.values()} for parts in (training, writing)]
    if list(training) != list(writing) or any(len(names) != 1 for names in kinds):
        raise ValueError("expected the same lengths in both, at least one, and the same parts")
