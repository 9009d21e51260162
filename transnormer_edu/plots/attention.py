"""Attention maps: which token looks at which, and how much."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from transnormer_edu.plots.future import causal_image, without_future
from transnormer_edu.plots.style import (
    INK,
    LINES,
    Drawing,
    drawing,
    need_equal_lengths,
    need_few,
    new_figure,
)

Map = Float[Tensor, "n n"]

FEW = 8  # up to so many tokens the numbers stand in the cells


@drawing
def attention_map(weights: Map, tokens: Sequence[str] | None = None) -> Drawing:
    """One map: row t is the token that reads, column s the one it looks at, s <= t.

    weights   (n, n), of any scale; the cells above the diagonal, the future, are hatched
    tokens    their names; None: they are numbered from 1

    Errors: ValueError for weights that are not square or finite, or names that do not fit.
    """
    names = _names(weights, tokens)
    figure, _ = _panels({"": weights}, names)
    return figure, f"Each row is a token that reads: {_peak(weights, names)}."


@drawing
def attention_maps(maps: Mapping[str, Map], tokens: Sequence[str] | None = None) -> Drawing:
    """Maps side by side, on one scale of shades, each under its name. See `attention_map`.

    Errors: as `attention_map`; ValueError for no map, or maps of different sizes.
    """
    if not maps or len({tuple(weights.shape) for weights in maps.values()}) > 1:
        sizes = [tuple(weights.shape) for weights in maps.values()]
        raise ValueError(f"got maps of sizes {sizes}, expected at least one, all of one size")
    names = _names(next(iter(maps.values())), tokens)
    figure, _ = _panels(maps, names)
    said = "; ".join(f"in “{title}” {_peak(weights, names)}" for title, weights in maps.items())
    return figure, f"Rows read, columns are looked at: {said}."


@drawing
def attention_map_mover(
    maps: Mapping[float, Map], tokens: Sequence[str] | None = None
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: one map, and the function that shows the one at a position, a key of `maps`."""
    names = _names(next(iter(maps.values())), tokens)
    first = next(iter(maps.values()))
    figure, (image,) = _panels({"": first}, names, scale_of=maps.values())
    image.axes.set_title(" ")  # its place is kept

    def move(position: float) -> str:
        image.set_data(without_future(maps[position].double()))
        return f"At {position:g}, {_peak(maps[position], names)}."

    return figure, move


@drawing
def score_spread(
    dims: Sequence[int], spread: Sequence[float], largest: Mapping[str, Sequence[float]]
) -> Drawing:
    """Left: the spread of scores q k over the head's width. Right: the largest weight of a row.

    dims      widths d; spread: the standard deviation of q k at each, beside the rule sqrt(d)
    largest   name -> mean of the largest softmax weight in a row, at each width

    Errors: ValueError for series of unequal length, or for no series or too many of them.
    """
    need_few("series", largest)
    need_equal_lengths(dims=dims, spread=spread, **largest)
    figure = new_figure(height=3.3)
    left, right = figure.subplots(1, 2)
    roots = [math.sqrt(d) for d in dims]
    left.plot(dims, roots, color=INK, linestyle=":", label="√d")
    left.plot(dims, spread, **LINES[0] | {"linestyle": ""}, label="measured")
    left.set_yscale("log", base=2)
    left.set_yticks(roots[::2], [f"{root:g}" for root in roots[::2]])
    left.set(xlabel="width of a head, d (numbers)", ylabel="standard deviation of q·k (1)")
    for (name, values), style in zip(largest.items(), LINES, strict=False):
        right.plot(dims, values, label=name, **style)
    right.set(xlabel="width of a head, d (numbers)", ylabel="largest weight (1)", ylim=(0, 1.05))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(dims[::2], [str(d) for d in dims[::2]])
        axes.minorticks_off()
    left.legend(loc="upper left")
    right.legend(loc="center right")
    said = ", ".join(f"{values[-1]:.2f} {name}" for name, values in largest.items())
    off = max(abs(value / math.sqrt(d) - 1) for d, value in zip(dims, spread, strict=True))
    return figure, (
        f"Left: the spread of the scores is √d, to within {math.ceil(100 * off)} %. Right: at "
        f"d = {dims[-1]} the largest weight of a row is on average {said}."
    )


def _names(weights: Map, tokens: Sequence[str] | None) -> list[str]:
    n = weights.shape[-1]
    if weights.ndim != 2 or weights.shape[0] != n:
        raise ValueError(f"got weights {tuple(weights.shape)}, expected a square map (n, n)")
    if not weights.isfinite().all():
        raise ValueError("some weights are NaN or infinite, expected finite ones")
    if tokens is not None and len(tokens) != n:
        raise ValueError(f"got {len(tokens)} tokens for a map of {n}, expected as many")
    return [str(number + 1) for number in range(n)] if tokens is None else list(tokens)


def _seen(weights: Map) -> Float[Tensor, "pairs"]:
    rows, columns = weights.tril().nonzero(as_tuple=True)
    return weights[rows, columns] if len(rows) else weights.new_zeros(1)


def _peak(weights: Map, names: Sequence[str]) -> str:
    """Where the last token looks most."""
    last = weights[-1].tolist()
    most = max(range(len(last)), key=lambda s: last[s])
    alike = sum(weight > last[most] - 1e-6 * abs(last[most]) for weight in last)
    reader, seen = f"token {len(names)}", f"token {most + 1}"
    if names[0] != "1":
        reader, seen = f"{reader} ({names[-1]})", f"{seen} ({names[most]})"
    if alike > 1:
        seen = f"{alike} tokens alike"
    return f"{reader} looks most at {seen}, with weight {last[most]:.2f}"


def _panels(
    maps: Mapping[str, Map], names: Sequence[str], scale_of: Iterable[Map] | None = None
) -> tuple[Figure, list[AxesImage]]:
    width = min(2.6 if len(maps) > 1 else 3.6, 7.0 / len(maps))
    figure = new_figure(width * len(maps) + 0.9, width + 0.6)
    ratios = [1.0] * len(maps) + [0.06]
    *panels, scale = figure.subplots(1, len(maps) + 1, gridspec_kw={"width_ratios": ratios})
    limits = [_seen(weights) for weights in scale_of or maps.values()]
    low = min(0.0, *(seen.min().item() for seen in limits))
    top = max(seen.max().item() for seen in limits)
    images = []
    for axes, (title, weights) in zip(panels, maps.items(), strict=True):
        images.append(_one(axes, weights, names, low, top))
        axes.set_title(title)
        if axes is not panels[0]:
            axes.tick_params(labelleft=False)
    panels[0].set_ylabel("reads (token t)")
    figure.colorbar(images[0], cax=scale)
    scale.set_title("weight", fontsize=10)
    scale.set_xlabel("(1)")
    return figure, images


def _one(axes: Axes, weights: Map, names: Sequence[str], low: float, top: float) -> AxesImage:
    image = causal_image(axes, weights.double(), vmin=low, vmax=top)
    shown = _ticks(names)
    upright = max(map(len, names)) > 3
    axes.set_xticks(shown, [names[i - 1] for i in shown], rotation=90 if upright else 0)
    axes.set_yticks(shown, [names[i - 1] for i in shown])
    axes.set_xlabel("looks at (token s)")
    if len(names) <= FEW:
        _write_numbers(axes, weights, (low + top) / 2)
    return image


def _ticks(names: Sequence[str]) -> range:
    """Which tokens bear their name: all where there is room, else every 2nd, 5th, 10th ..."""
    n = len(names)
    room = 24 if names[0] != "1" else 22 // len(names[-1])
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, n) if n <= step * room)
    return range(step, n + 1, step)


def _write_numbers(axes: Axes, weights: Map, middle: float) -> None:
    for t in range(len(weights)):
        for s in range(t + 1):
            value = weights[t, s].item()
            color = "white" if value > middle else INK
            axes.text(
                s + 1, t + 1, f"{value:.2f}", ha="center", va="center", color=color, fontsize=10
            )
