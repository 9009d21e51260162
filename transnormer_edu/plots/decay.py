"""Decay as pictures: masks, the windows of a schedule, and the recurrence that overflows."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from torch import Tensor

from transnormer_edu.decay import decay_mask, half_life, window
from transnormer_edu.plots.dilution import NEAR, SHARES, flat_line, mean_mass
from transnormer_edu.plots.future import causal_image, without_future
from transnormer_edu.plots.style import (
    BLUE,
    INK,
    LINES,
    SHADES,
    Drawing,
    drawing,
    need_equal_lengths,
    need_few,
    new_figure,
)


@drawing
def masks(rates: Sequence[float], n: int) -> Drawing:
    """For each rate its mask M_ts = exp(-r (t-s)), and below it the mask's local mass.

    rates   natural log per token; n: tokens
    Errors: ValueError for no rate, or one that is not a number of at least 0.
    """
    need_equal_lengths(rates=rates)
    figure = new_figure(1.2 + 2.2 * len(rates), 4.9)
    ratios = [1] * len(rates) + [0.06]
    grid = figure.subplots(2, len(rates) + 1, width_ratios=ratios, height_ratios=(1.15, 1))
    said = []
    for rate, mask_axes, mass_axes in zip(rates, *grid[:, :-1], strict=True):
        image, line = _mask_axes(mask_axes, n), _mass_axes(mass_axes)
        said.append(_set_rate(rate, n, image, line))
        mask_axes.set_title(f"rate {rate:g}, λ = {math.exp(-rate):.2g}")
    for axes in grid[:, 1:-1].flat:
        axes.set_ylabel("")
        axes.tick_params(labelleft=False)
    figure.colorbar(image, cax=grid[0, -1], label="left of a token").ax.set_xlabel("(1)")
    grid[1, -1].axis("off")
    return figure, " ".join(said)


@drawing
def mask_mover(n: int) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: one mask beside its local mass, and the function that sets the rate."""
    figure = new_figure(7.0, 3.3)
    mask_axes, mass_axes = figure.subplots(1, 2)
    image, line = _mask_axes(mask_axes, n), _mass_axes(mass_axes)
    return figure, lambda rate: _set_rate(rate, n, image, line)


@drawing
def windows(schedules: Mapping[str, Float[Tensor, "layers heads"]]) -> Drawing:
    """Windows 1/r of every head (across) and layer (down), one panel for each schedule.

    schedules   name -> rates (layers, heads), all above 0; shades are logarithmic, up to 100,000
    Errors: ValueError for no schedule, or rates that are not above 0.
    """
    need_equal_lengths(schedules=list(schedules))
    if not all(bool((rates > 0).all()) for rates in schedules.values()):
        raise ValueError("some rates are 0, negative or NaN; expected all above 0")
    layers = max(len(rates) for rates in schedules.values())
    figure = new_figure(7.5, 1.2 + 0.22 * layers)
    ratios = [1] * len(schedules) + [0.06]
    *panels, scale = figure.subplots(1, len(schedules) + 1, width_ratios=ratios)
    shades = LogNorm(0.1, 1e5)
    for axes, (name, rates) in zip(panels, schedules.items(), strict=True):
        image = _window_axes(axes, window(rates), shades)
        axes.set_title(name)
    panels[0].set_ylabel("layer l (number)")
    bar = figure.colorbar(image, cax=scale, extend="max", label="window 1/r")
    bar.ax.set_xlabel("(tokens)", loc="left")
    return figure, "Windows in tokens, first layer: " + "; ".join(
        f"{name}: {_short(1 / float(rates[0, 0]))} (head 1) to {_short(1 / float(rates[0, -1]))} "
        f"(head {rates.shape[1]}), longer with every layer"
        for name, rates in schedules.items()
    ) + "."


@drawing
def state_sizes(runs: Mapping[str, Sequence[float]], limits: Mapping[str, float]) -> Drawing:
    """Largest entry of a state after steps 1, 2, ..., for several recurrences; x: no number left.

    runs     name -> sizes; one that is not finite ends its line
    limits   name of a number type -> the largest number it has
    Errors: ValueError for no run, too many, an empty one, or one that starts without a number.
    """
    need_few("runs", runs)
    figure = new_figure(height=3.8)
    axes = figure.subplots()
    said = []
    for (name, sizes), look in zip(runs.items(), LINES, strict=False):
        need_equal_lengths(**{name.replace(" ", "_"): sizes})
        said.append(_run(axes, name, sizes, look))
    steps = max(len(sizes) for sizes in runs.values())
    for name, limit in limits.items():
        axes.axhline(limit, color=INK, linestyle=":", linewidth=1.5)
        axes.annotate(
            f"largest number in {name}", (steps, limit), (0, 4), textcoords="offset points",
            ha="right", fontsize=10,
        )  # fmt: skip
    axes.set(yscale="log", xlabel="step t (tokens)", ylabel="largest entry of the state (1)")
    axes.set_ylim(1e-3, 1e3 * max(limits.values(), default=1e3))
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.86))
    return figure, "; ".join(said) + "."


def _run(axes: Axes, name: str, sizes: Sequence[float], look: Mapping) -> str:
    end = next((t for t, size in enumerate(sizes) if not math.isfinite(size)), None)
    if end == 0:
        raise ValueError(f"{name} holds no number in its first step; expected at least one")
    seen = sizes[:end]
    axes.plot(range(1, len(seen) + 1), seen, label=name, markevery=max(1, len(sizes) // 8), **look)
    if end is None:
        return f"{name}: never above {max(seen):.2g}"
    axes.plot(end, seen[-1], "X", color=look["color"], markersize=12, markeredgecolor=INK)
    return f"{name}: holds no number from step {end + 1} on"


def _mask_axes(axes: Axes, n: int) -> AxesImage:
    image = causal_image(axes, torch.zeros(n, n), vmin=0, vmax=1)
    axes.set(xlabel="token s (number)", ylabel="token t (number)")
    axes.set_xticks([1, n // 2, n])
    axes.set_yticks([1, n // 2, n])
    return image


def _mass_axes(axes: Axes) -> Line2D:
    flat_line(axes)
    axes.annotate("flat", (78, 62), fontsize=10)
    axes.set_xticks([0, 40, 80])
    return axes.plot([], [], color=BLUE, linewidth=2.5)[0]


def _set_rate(rate: float, n: int, image: AxesImage, line: Line2D) -> str:
    if not 0 <= rate < math.inf:
        raise ValueError(f"rate is {rate}, expected a number of at least 0")
    mask = decay_mask(torch.tensor([float(rate)]), n)[0]
    mass = mean_mass(mask)
    image.set_data(without_future(mask))
    line.set_data(100 * SHARES, mass)
    r = torch.tensor(float(rate))
    reach = f"half-life {half_life(r):.2g} tokens, window {window(r):.2g}"
    return (
        f"Rate {rate:g}: {reach if rate else 'nothing is forgotten'}; the nearest 40 % hold "
        f"{mass[NEAR]:.0f} % of the mass."
    )


def _window_axes(axes: Axes, tokens: Float[Tensor, "layers heads"], shades: LogNorm) -> AxesImage:
    layers, heads = tokens.shape
    extent = (0.5, heads + 0.5, layers - 0.5, -0.5)
    image = axes.imshow(tokens.numpy(), cmap=SHADES, norm=shades, aspect="auto", extent=extent)
    for layer in range(layers):
        for head in range(heads):
            value = float(tokens[layer, head])
            axes.text(
                head + 1, layer, _short(value), ha="center", va="center", fontsize=9,
                color="white" if value > 500 else INK,
            )  # fmt: skip
    axes.set(xlabel="head (number)", xticks=range(1, heads + 1))
    axes.set_yticks([0, layers - 1, *range(4, layers - 2, 4)])
    axes.grid(False)
    return image


def _short(tokens: float) -> str:
    """In at most four signs: 0.12, 2.7, 256, 5.9k, 26M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if tokens >= 0.9995 * size:
            return _two_digits(tokens / size) + letter
    return _two_digits(tokens)


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 9.95 else f"{number:.2g}"
