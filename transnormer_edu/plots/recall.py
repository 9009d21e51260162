"""Recall: what a state gives back of the pairs that were put into it."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

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

PERCENT = "recall (% of the questions)"


@drawing
def read_outs(
    keys: Float[Tensor, "n dk"], values: Float[Tensor, "n"], counts: Sequence[int]
) -> Drawing:
    """How much keys overlap, and what comes back for their values, one panel for each count.

    keys      rows of length 1; the first `count` of them are in use
    values    one number for each key; what comes back for v_i is sum_j (k_i k_j) v_j
    Errors: ValueError for no count, one that is not 1 to n, or other numbers of keys and values.
    """
    _check_pairs(keys, values, counts)
    figure = new_figure(7.5, 4.7)
    ratios = [1] * len(counts) + [0.07]
    grid = figure.subplots(2, len(counts) + 1, width_ratios=ratios, squeeze=False)
    said = []
    for count, above, below in zip(counts, *grid[:, :-1], strict=True):
        artists = _overlap_axes(above, len(keys)), _value_axes(below, keys, values)
        said.append(_set_count(count, keys, values, *artists))
        above.set_title(f"{count} pairs")
    for axes in grid[:, 1:-1].flat:
        axes.set_ylabel("")
        axes.tick_params(labelleft=False)
    scale = figure.colorbar(artists[0], cax=grid[0, -1]).ax
    scale.set_xlabel("overlap\n(1)")
    scale.xaxis.set_label_position("top")  # below it would touch that of the panel beside it
    grid[1, -1].axis("off")
    return figure, " ".join(said)


@drawing
def read_out_mover(
    keys: Float[Tensor, "n dk"], values: Float[Tensor, "n"]
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: overlaps beside what comes back, and the function that sets how many pairs."""
    _check_pairs(keys, values, [1])
    figure = new_figure(7.0, 3.5)
    left, right = figure.subplots(1, 2)
    artists = _overlap_axes(left, len(keys)), _value_axes(right, keys, values)
    return figure, lambda count: _set_count(int(count), keys, values, *artists)


@drawing
def recall_over(
    where: Sequence[float],
    measured: Mapping[str, Sequence[float]],
    over: str,
    *,
    foretold: Mapping[str, Sequence[float]] | None = None,
    mark: float = 50,
) -> Drawing:
    """Recall in percent over anything; dotted: what was foretold.

    where      positions on the x axis, `over` its label with a unit
    measured   name -> recall (0 to 1) at each position
    foretold   name of a measured curve -> recall (0 to 1) that was expected
    mark       percent: the sentence says who ends above this line and who below
    Errors: ValueError for no curve, too many, unequal lengths, or a foretold one of no such name.
    """
    foretold = foretold or {}
    need_few("curves", measured)
    need_equal_lengths(where=where, **measured)
    need_equal_lengths(where=where, **foretold)
    if not set(foretold) <= set(measured):
        raise ValueError(f"foretold {list(foretold)}, but measured are {list(measured)}")
    figure = new_figure(height=3.6)
    axes = figure.subplots()
    for (name, shares), line in zip(measured.items(), LINES, strict=False):
        axes.plot(where, [100 * x for x in shares], label=name, **line)
        if name in foretold:
            expected = [100 * x for x in foretold[name]]
            axes.plot(where, expected, color=INK, linestyle=":", linewidth=1.5)
    if foretold:
        axes.plot([], [], color=INK, linestyle=":", linewidth=1.5, label="foretold")
    axes.axhline(mark, color="#999999", linewidth=0.8)
    axes.set(xlabel=over, ylabel=PERCENT, ylim=(0, 104))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, _ends(measured, mark)


@drawing
def over_tokens(
    series: Mapping[str, Sequence[float]], unit: str, events: Mapping[int, str]
) -> Drawing:
    """What several memories hold after token 1, 2, ..., with a word at some tokens.

    series   name -> a number after each token, `unit` what it is, with its unit
    events   token -> a short word, written above a line at that token
    Errors: ValueError for no series, too many, unequal lengths, or an event at no token.
    """
    need_few("series", series)
    need_equal_lengths(**series)
    n = len(next(iter(series.values())))
    if not all(1 <= token <= n for token in events):
        raise ValueError(f"got events at {list(events)}, expected tokens 1 to {n}")
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    for (name, values), line in zip(series.items(), LINES, strict=False):
        axes.plot(range(1, n + 1), values, label=name, **line)
    top = axes.get_ylim()[1]
    for token, word in events.items():
        axes.axvline(token, color=INK, linestyle=":", linewidth=1.2, zorder=0)
        axes.annotate(
            word, (token, top), (0, 3), textcoords="offset points", ha="center", fontsize=10
        )
    axes.set(xlabel="token (number)", ylabel=unit, ylim=(None, top))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    last = ", ".join(f"{name} {values[-1]:.2g}" for name, values in series.items())
    return figure, f"After the last token: {last}."


def _ends(measured: Mapping[str, Sequence[float]], mark: float) -> str:
    above = [name for name, shares in measured.items() if 100 * shares[-1] > mark]
    below = [name for name in measured if name not in above]
    return (
        f"At the right end above {mark:g} %: {', '.join(above) or 'none'}; below: "
        f"{', '.join(below) or 'none'}."
    )


def _overlap_axes(axes: Axes, n: int):
    extent = (0.5, n + 0.5, n + 0.5, 0.5)
    image = axes.imshow(torch.zeros(n, n).numpy(), cmap=SHADES, vmin=0, vmax=1, extent=extent)
    axes.set(xlabel="key j (number)", ylabel="key i (number)")
    axes.set_xticks([1, n // 2, n])
    axes.set_yticks([1, n // 2, n])
    axes.grid(False)
    return image


def _value_axes(axes: Axes, keys: Tensor, values: Tensor):
    wide = 1.1 * float(values.abs().max())
    high = 1.1 * max(
        float(_come_back(keys[:count], values[:count]).abs().max())
        for count in range(1, len(keys) + 1)
    )
    axes.plot([-high, high], [-high, high], color=INK, linewidth=1)
    dots = axes.plot([], [], "o", color=BLUE)[0]
    axes.set(xlabel="value put in (1)", ylabel="what comes back (1)")
    axes.set(xlim=(-wide, wide), ylim=(-high, high))
    return dots


def _come_back(keys: Tensor, values: Tensor) -> Tensor:
    """What a state sum_j k_j v_j answers to each of its keys: sum_j (k_i k_j) v_j."""
    return keys @ (keys.T @ values)


def _set_count(count: int, keys: Tensor, values: Tensor, image, dots) -> str:
    _check_pairs(keys, values, [count])
    overlap = keys[:count] @ keys[:count].T
    back = _come_back(keys[:count], values[:count])
    shown = torch.full((len(keys), len(keys)), math.nan)
    shown[:count, :count] = overlap.abs()
    image.set_data(shown.numpy())
    dots.set_data(values[:count].tolist(), back.tolist())
    error = float((back - values[:count]).square().mean().sqrt())
    return f"{count} pairs: off by {error + 1e-9:.1f} on average."


def _check_pairs(keys: Tensor, values: Tensor, counts: Sequence[int]) -> None:
    if len(keys) != len(values):
        raise ValueError(f"got {len(keys)} keys and {len(values)} values, expected as many")
    if not counts or not all(1 <= count <= len(keys) for count in counts):
        raise ValueError(f"got counts {list(counts)}, expected some of 1 to {len(keys)}")
