"""Figures of lesson 15: weights on few levels, what that costs, and what it saves."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from transnormer_edu.gptq import GPTQFormat
from transnormer_edu.plots.style import BLUE, INK, LINES, PALE, Drawing, drawing, new_figure
from transnormer_edu.quantise import quantised


@drawing
def stairs(weights: Float[Tensor, "n"], bits: int) -> Drawing:
    """Weights of one group, sorted, and the levels that they are rounded to.

    Errors: ValueError for fewer than two weights or not a multiple of 16.
    """
    figure, _, sentence = _stairs(weights, bits)
    return figure, sentence


@drawing
def stairs_mover(weights: Float[Tensor, "n"]):
    """The figure of `stairs` with 2 bits, and the function that gives it other bits."""
    figure, line, _ = _stairs(weights, 2)

    def move(bits: float) -> str:
        steps = _rounded(weights, int(bits))
        line.set_ydata(steps)
        line.axes.set_title(f"{int(bits)} bits")
        return _largest(weights, steps, int(bits))

    return figure, move


def _stairs(weights, bits):
    if weights.ndim != 1 or len(weights) < 2 or len(weights) % 16:
        raise ValueError(f"got weights {tuple(weights.shape)}; expected one row of 16, 32, ...")
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    place, steps = range(1, len(weights) + 1), _rounded(weights, bits)
    axes.plot(place, weights.sort().values, "o", color=INK, markersize=4, label="weight")
    (line,) = axes.step(place, steps, where="mid", color=BLUE, label="its level")
    axes.set(xlabel="weights of a group, sorted (rank)", ylabel="value (1)", title=f"{bits} bits")
    axes.legend()
    return figure, line, _largest(weights, steps, bits)


def _rounded(weights, bits):
    row = weights.sort().values.double()
    many = row.expand(16, -1).contiguous()  # a layer of 16 equal outputs: what fills an int32
    return quantised(many, GPTQFormat(bits, -1)).weight(torch.float64)[0]


def _largest(weights, steps, bits) -> str:
    largest = float((weights.sort().values - steps).abs().max())
    return (
        f"With {bits} bits the {len(weights)} weights stand on {len(set(steps.tolist()))} levels; "
        f"none is moved by more than {largest:.2g}."
    )


@drawing
def cost(full: float, by_bits: Mapping[str, Mapping[int, float]]) -> Drawing:
    """Bits per byte over bits per weight, a curve for each way of rounding.

    Errors: ValueError without a curve.
    """
    if not by_bits or not all(by_bits.values()):
        raise ValueError("got no curve; expected bits per byte for each way of rounding")
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    for (name, values), look in zip(by_bits.items(), LINES, strict=False):
        axes.plot(list(values), list(values.values()), label=name, **look)
    axes.axhline(full, color=INK, linewidth=1, linestyle=(0, (1, 3)), label="not rounded")
    ticks = sorted({bits for values in by_bits.values() for bits in values})
    axes.set(xlabel="size of a weight (bits)", ylabel="cost of the text (bits per byte)")
    axes.set_xticks(ticks)
    axes.legend()
    rises = "; ".join(
        f"{name}: " + ", ".join(f"{100 * (v / full - 1):+.1f} % at {b}" for b, v in values.items())
        for name, values in by_bits.items()
    )
    return figure, f"What rounding the weights to so many bits adds to the cost of a text. {rises}."


@drawing
def sizes(gigabytes: Mapping[str, float]) -> Drawing:
    """How much memory the weights of one model take in several formats, as bars.

    Errors: ValueError for nothing to show, or a size that is not above 0.
    """
    if not gigabytes or min(gigabytes.values()) <= 0:
        raise ValueError(f"got sizes {dict(gigabytes)}; expected one or more, above 0")
    figure = new_figure(height=0.9 + 0.5 * len(gigabytes))
    axes = figure.subplots()
    names: Sequence[str] = list(gigabytes)[::-1]
    values = [gigabytes[name] for name in names]
    axes.barh(names, values, color=PALE, edgecolor=INK)
    for row, value in enumerate(values):
        axes.annotate(f"{value:.1f} GB", (value, row), (5, 0), textcoords="offset points",
                      va="center")  # fmt: skip
    axes.set(xlabel="memory for the weights (GB)", xlim=(0, 1.15 * max(values)))
    axes.set_ylabel("stored as (format)")
    axes.grid(axis="y", visible=False)
    told = ", ".join(f"{name} {value:.1f} GB" for name, value in gigabytes.items())
    return figure, f"Memory that the weights take: {told}."
