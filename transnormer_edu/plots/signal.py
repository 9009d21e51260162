"""How large things are: along a text, through the layers, and what a block costs."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from transnormer_edu.plots.style import (
    BLUE,
    INK,
    LINES,
    ORANGE,
    Drawing,
    drawing,
    need_equal_lengths,
    need_few,
    new_figure,
)


@drawing
def along_text(sizes: Mapping[str, Sequence[float]]) -> Drawing:
    """Root mean square of something at every token of a text, counted from 1.

    Errors: ValueError for nothing to show, too much, or series of unequal length.
    """
    need_few("series", sizes)
    need_equal_lengths(**sizes)
    figure = new_figure(height=3.3)
    axes = figure.subplots()
    said = []
    for (name, values), line in zip(sizes.items(), LINES, strict=False):
        axes.loglog(range(1, len(values) + 1), values, label=name, **line | {"marker": ""})
        tail = values[-max(1, len(values) // 8) :]
        said.append(f"{name} {_growth(sum(tail) / len(tail) / values[0])}")
    axes.set(xlabel="token (position, from 1)", ylabel="root mean square (1)")
    axes.legend(loc="upper left")
    return figure, f"From the first token to the end, {'; '.join(said)}."


@drawing
def costs(parts: Mapping[str, tuple[float, float]]) -> Drawing:
    """Parameters and FLOPs of the parts of a block, side by side.

    parts   name -> (parameters in millions, FLOPs per token in millions)
    Errors: ValueError for no parts.
    """
    need_equal_lengths(parts=list(parts))
    figure = new_figure(height=0.9 + 0.42 * len(parts))
    left, right = figure.subplots(1, 2, sharey=True)
    rows = range(len(parts))
    for axes, column, color, hatch in ((left, 0, BLUE, ""), (right, 1, ORANGE, "///")):
        values = [part[column] for part in parts.values()]
        axes.barh(rows, values, color=color, edgecolor=INK, hatch=hatch)
        for y, value in enumerate(values):
            axes.annotate(
                f"{value:.2f}", (value, y), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_xlim(0, 1.25 * max(values))
    left.set_yticks(rows, list(parts))
    left.set(xlabel="parameters (millions)", ylabel="part", ylim=(len(parts) - 0.5, -0.5))
    right.set_xlabel("forward (MFLOP per token)")
    parameters, flops = (sum(part[i] for part in parts.values()) for i in (0, 1))
    return figure, (
        f"Together {parameters:.1f} million parameters and {flops:.1f} MFLOP per token; the most "
        f"parameters are in {max(parts, key=lambda part: parts[part][0])}."
    )


@drawing
def through_layers(
    signal: Mapping[str, Sequence[float]], gradient: Mapping[str, Sequence[float]]
) -> Drawing:
    """Size of x and of its gradient after 0, 1, 2, ... blocks, side by side.

    A line stops where its numbers are no longer finite.
    Errors: ValueError for nothing to show, too much, or other names in the two.
    """
    if not 1 <= len(signal) <= len(LINES) or signal.keys() != gradient.keys():
        raise ValueError(
            f"got signals {list(signal)} and gradients {list(gradient)}; expected the same names, "
            f"1 to {len(LINES)}"
        )
    figure = new_figure(7.6, 4.0)
    left, right = figure.subplots(1, 2)
    _sizes(left, signal)
    _sizes(right, gradient)
    left.set(ylabel="root mean square (1)", title="signal x")
    right.set(title="gradient dx")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure, f"{'; '.join(_end(name, values) for name, values in signal.items())}."


def _sizes(axes: Axes, sizes: Mapping[str, Sequence[float]]) -> None:
    for (name, values), line in zip(sizes.items(), LINES, strict=False):
        finite = [value if math.isfinite(value) else math.nan for value in values]
        axes.semilogy(range(len(values)), finite, label=name, **line)
    axes.set_xlabel("after block (number)")


def _growth(times: float) -> str:
    """To one digit: the others belong to the random weights."""
    return (
        "keeps its size"
        if 0.8 < times < 1.25
        else f"grows to about {float(f'{times:.1g}'):g} times its size"
    )


def _end(name: str, values: Sequence[float]) -> str:
    broken = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
    if broken is not None:
        return f"{name}: not finite after block {broken}"
    return f"{name}: finite through {len(values) - 1} blocks"
