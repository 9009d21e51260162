"""Where the mass of attention maps lies, over neighbourhood size, and maps side by side."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from torch import Tensor

from transnormer_edu.dilution import attention_mass, local_mass
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

Maps = Float[Tensor, "*batch n n"]

SHARES = torch.linspace(0, 1, 41)
NEAR = 16  # of SHARES: the nearest 40 %
SHADE_POWER = 0.5  # the root of a share: 4 % is a fifth of the way to black


@drawing
def local_masses(maps: Mapping[str, Maps]) -> Drawing:
    """Local mass over neighbourhood size, one curve a name: the mean over all maps (..., n, n).

    The dotted diagonal is a flat map. Errors: ValueError for no name, or more than four.
    """
    masses = {name: mean_mass(weights) for name, weights in maps.items()}
    figure, _ = _mass_curves(masses)
    return figure, f"Mass in the nearest 40 % of the tokens. {_nearest(masses)}."


@drawing
def local_masses_mover(
    maps: Mapping[float, Mapping[str, Maps]],
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: `local_masses` of the maps at a position, a key of `maps`.

    Every position has the same names. Errors: as `local_masses`.
    """
    masses = {
        position: {name: mean_mass(weights) for name, weights in named.items()}
        for position, named in maps.items()
    }
    figure, lines = _mass_curves(next(iter(masses.values()), {}))

    def move(position: float) -> str:
        for name, line in lines.items():
            line.set_ydata(masses[position][name])
        return f"At {position:g}, mass in the nearest 40 %: {_nearest(masses[position])}."

    return figure, move


def _mass_curves(masses: Mapping[str, Float[Tensor, "m"]]) -> tuple[Figure, dict[str, Line2D]]:
    need_few("curves", masses)
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    flat_line(axes)
    lines = {}
    for (name, mass), look in zip(masses.items(), LINES, strict=False):
        (lines[name],) = axes.plot(100 * SHARES, mass, label=name, markevery=4, **look)
    axes.legend(loc="lower right")
    return figure, lines


def _nearest(masses: Mapping[str, Float[Tensor, "m"]]) -> str:
    said = (f"{name}: {mass[NEAR]:.0f} %" for name, mass in masses.items())
    return "; ".join((*said, "flat: 40 %"))


@drawing
def one_against_all(lengths: Sequence[int], masses: Mapping[str, Sequence[float]]) -> Drawing:
    """Mass of the one token that fits among n, over n, for several ways to weigh.

    lengths   n, tokens in the row; masses: name -> share of the row, 0 to 1, at each n
    Errors: ValueError for no or too many names, or series of unequal length.
    """
    need_few("curves", masses)
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    said = []
    for (name, values), look in zip(masses.items(), LINES, strict=False):
        need_equal_lengths(lengths=lengths, masses=values)
        axes.semilogx(lengths, [100 * p for p in values], base=2, label=name, **look)
        said.append(f"{name} {100 * values[0]:.0f} % → {100 * values[-1]:.1f} %")
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set(xlabel="tokens in the row (n)", ylabel="mass of the one that fits (%)", ylim=(0, 105))
    axes.legend(loc="upper right")
    return figure, (
        f"What the one token that fits keeps, from {lengths[0]} to {lengths[-1]:,} tokens: "
        f"{'; '.join(said)}."
    )


def mean_mass(weights: Maps) -> Float[Tensor, "m"]:
    """Local mass at SHARES in percent, the mean over all maps."""
    return 100 * local_mass(weights, SHARES).reshape(-1, len(SHARES)).nanmean(0)


def flat_line(axes: Axes) -> None:
    """The axes of a local mass: in percent, with the dotted diagonal of a flat map."""
    axes.plot([0, 100], [0, 100], color=INK, linestyle=":", linewidth=1.5, label="flat")
    axes.set(xlabel="nearest tokens (%)", ylabel="mass in them (%)", xlim=(0, 100), ylim=(0, 104))
    axes.set_xticks([0, 20, 40, 60, 80, 100])


@drawing
def map_grid(maps: Mapping[str, Float[Tensor, "layers heads n n"]]) -> Drawing:
    """Every map of every model: a block for each model, a row for each layer, a column a head.

    Shades are shares of a row, on a scale that shows small ones (`SHADE_POWER`).
    Errors: ValueError for no model, or models that do not have the same layers and heads.
    """
    sizes = {weights.shape for weights in maps.values()}
    if len(sizes) != 1:
        raise ValueError(f"got maps of sizes {[tuple(size) for size in sizes]}; expected one size")
    layers, heads, n, _ = sizes.pop()
    figure = new_figure(7.5, 0.9 + 0.55 * layers)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    blocks = figure.subfigures(1, len(maps))
    for block, (name, weights) in zip(np.atleast_1d(blocks), maps.items(), strict=True):
        block.suptitle(name, fontsize=12)
        panels = block.subplots(layers, heads, squeeze=False)
        for layer, head in itertools.product(range(layers), range(heads)):
            axes = panels[layer, head]
            draw_map(axes, weights[layer, head])
            axes.set(xticks=[], yticks=[])
            if layer == layers - 1:
                axes.set_xlabel(f"{head + 1}", fontsize=10)
            if head == 0:
                axes.set_ylabel(f"{layer}", fontsize=10)
        block.supxlabel("head (number)", fontsize=10)
        block.supylabel("layer (number)", fontsize=10)
    return figure, (
        f"Maps of {layers} layers (down) and {heads} heads (across), {n} tokens each: rows read, "
        f"columns are looked at, dark is a large share of the row."
    )


def draw_map(axes: Axes, weights: Float[Tensor, "n n"]) -> AxesImage:
    """A map's shares as shades; the future is hatched."""
    return causal_image(axes, attention_mass(weights), norm=PowerNorm(SHADE_POWER, 0, 1))


def seen_mass(weights: Float[Tensor, "n n"]):
    """Shares of each row as an array, NaN in the future."""
    return without_future(attention_mass(weights))


@drawing
def masses_of_heads(maps: Mapping[str, Float[Tensor, "layers *batch heads n n"]]) -> Drawing:
    """Local mass of every head of every layer, one panel for each model; thick: their mean.

    Errors: ValueError for no model.
    """
    need_equal_lengths(maps=list(maps))
    figure = new_figure(7.5, 3.7)
    panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    said = []
    for axes, (name, weights) in zip(panels, maps.items(), strict=True):
        flat_line(axes)
        axes.set_xticks([0, 40, 100])
        for number, (layer, look) in enumerate(zip(weights, itertools.cycle(LINES))):
            thin = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1.2}
            curves = torch.stack([mean_mass(head) for head in layer.movedim(-3, 0)])
            lines = axes.plot(100 * SHARES, curves.T, **thin)
            lines[0].set_label(f"layer {number}")
        mean = mean_mass(weights)
        axes.plot(100 * SHARES, mean, color=INK, linewidth=3.5, label="mean")
        axes.set_title(name)
        said.append(f"{name}: {mean[NEAR]:.0f} %")
    for axes in panels[1:]:
        axes.set_ylabel("")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure, f"Mass in the nearest 40 %, mean of all heads (thick). {'; '.join(said)}."
