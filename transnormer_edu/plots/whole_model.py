"""Speed of whole models: training over the context, decoding over what was read."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from transnormer_edu.plots.style import LINES, Drawing, drawing, need_few, new_figure

Curves = Mapping[str, Mapping[int, float]]


@drawing
def training(speeds: Curves, memory: Curves, where: str) -> Drawing:
    """Tokens per second, and memory that the forward pass keeps, over the context.

    speeds, memory   name of a model -> context -> tokens/s, or GiB; where: machine, day, versions
    The first model is compared with the second.
    Errors: ValueError for no models, or more than have a look of their own.
    """
    need_few("models", speeds)
    figure = new_figure(7.5, 3.8)
    left, right = figure.subplots(1, 2)
    _lines(left, speeds, "tokens per second", "training (tokens/s)")
    _lines(right, memory, "kept for the backward pass", "memory (GiB)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(speeds))
    figure.suptitle(where, fontsize=9)
    return figure, f"In training, {_compared(speeds)}."


@drawing
def decoding(times: Curves, where: str) -> Drawing:
    """Milliseconds for one more token over the tokens that were read before.

    times   name of a model -> context -> ms; where: machine, day, versions
    Errors: ValueError for no models, or more than have a look of their own.
    """
    need_few("models", times)
    figure = new_figure(7.5, 3.4)
    axes = figure.subplots()
    _lines(axes, times, "", "time per token (ms)")
    axes.legend()
    axes.set_title(where, fontsize=9)
    said = "; ".join(
        f"{name} {_number(next(iter(curve.values())))} ms after {next(iter(curve)):,} tokens"
        + (f", {_number(curve[max(curve)])} after {max(curve):,}" if len(curve) > 1 else "")
        for name, curve in times.items()
    )
    return figure, f"One more token: {said}."


def _lines(axes: Axes, curves: Curves, title: str, unit: str) -> None:
    for (name, curve), style in zip(curves.items(), LINES, strict=False):
        axes.plot(list(curve), list(curve.values()), label=name, **style)
    contexts = sorted({context for curve in curves.values() for context in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts, [f"{n:,}" for n in contexts], rotation=30)
    axes.set(title=title, xlabel="context (tokens)", ylabel=unit)
    axes.set_ylim(0, 1.1 * max(max(curve.values()) for curve in curves.values()))


def _compared(speeds: Curves) -> str:
    """The first beside the second at every context that both have."""
    first, *others = speeds
    if not others:
        alone = ", ".join(f"{_number(v)} at {n:,}" for n, v in speeds[first].items())
        return f"tokens per second of {first} over the context: {alone}"
    times = {
        n: v / speeds[others[0]][n] for n, v in speeds[first].items() if n in speeds[others[0]]
    }
    said = ", ".join(f"{ratio:.2f} at {n:,}" for n, ratio in times.items())
    return f"{first} over the {others[0]}, tokens per second: {said} tokens of context"


def _number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"
