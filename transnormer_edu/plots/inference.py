"""Reading and writing with a state: what a call looks at, what it costs, how a token is chosen."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle

from transnormer_edu.plots.model import GPU_GB
from transnormer_edu.plots.style import (
    BLUE,
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

PER_ROW = 10  # gigabytes in a row of the drawn memory


@drawing
def reading_plan(pieces: Sequence[int]) -> Drawing:
    """The map of a text that is read in several calls: what is compared, and what the state tells.

    pieces   tokens in each call, in order
    Errors: ValueError for no pieces, or one without a token.
    """
    if not pieces or min(pieces) < 1:
        raise ValueError(f"got pieces {list(pieces)}, expected at least one token in each")
    n = sum(pieces)
    figure = new_figure(5.6, 4.6)
    axes = figure.subplots()
    first = 0
    for size in pieces:
        last = first + size
        # A token sees itself and nothing later: the upper edge is a stair.
        stair = [corner for i in range(first, last) for corner in ((i, i), (i + 1, i))]
        axes.add_patch(Polygon([*stair, (last, last), (first, last)], color=BLUE, ec=INK))
        axes.add_patch(
            Rectangle((0, first), first, size, facecolor=PALE, edgecolor=INK, hatch="//")
        )
        first = last
    axes.set(xlim=(0, n), ylim=(n, 0), aspect="equal")
    axes.set(xlabel="token that is looked at (number)", ylabel="token that looks (number)")
    tokens = range(1, n + 1, max(1, n // 6))
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks([token - 0.5 for token in tokens], map(str, tokens))
    axes.grid(False)
    names = {"compared, pair by pair": (BLUE, ""), "told by the state": (PALE, "//")}
    boxes = [Patch(facecolor=c, hatch=h, edgecolor=INK, label=x) for x, (c, h) in names.items()]
    axes.legend(handles=boxes, loc="upper right")
    pairs, all_pairs = sum(m * (m + 1) // 2 for m in pieces), n * (n + 1) // 2
    return figure, (
        f"{n} tokens in {len(pieces)} calls of {', '.join(map(str, pieces))}. Of {all_pairs} pairs "
        f"{pairs} are compared; all others are told by the state that the call before left."
    )


@drawing
def time_over_context(measured: Mapping[str, Mapping[int, float]]) -> Drawing:
    """Time of one more token over what was read before it, both axes logarithmic.

    measured   name -> {tokens read before: seconds}; the lengths may differ from name to name
    Errors: ValueError for no series, too many, fewer than two lengths, or values not above 0.
    """
    need_few("series", measured)
    if min(map(len, measured.values())) < 2:
        raise ValueError("got a series of fewer than two lengths, expected at least two in each")
    if min(min(*times, *times.values()) for times in measured.values()) <= 0:
        raise ValueError("expected every length and every time above 0")
    figure = new_figure(height=4)
    axes = figure.subplots()
    for (name, times), line in zip(measured.items(), LINES, strict=False):
        axes.loglog(list(times), [1e3 * t for t in times.values()], label=name, **line)
    every = sorted({n for times in measured.values() for n in times})
    axes.set_xticks(every, [in_k(n) for n in every])
    axes.minorticks_off()
    axes.set(xlabel="tokens read before (number)", ylabel="time of the next token (ms)")
    axes.set_ylim(top=4 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", ncols=len(measured))
    return figure, "; ".join(map(_slowed, measured, measured.values())) + "."


@drawing
def errors_over_steps(errors: Mapping[str, Sequence[float]]) -> Drawing:
    """Error of each step, until there is no number any more: that step is marked with a cross.

    errors   name -> relative error, above 0, at step 1, 2, ...; inf or NaN where there is no number
    Errors: ValueError for no runs, too many, or one that begins without a number above 0.
    """
    need_few("runs", errors)
    numbers = {name: _up_to_the_first_gap(values) for name, values in errors.items()}
    if not all(numbers.values()):
        raise ValueError("expected a number above 0 in the first step of every run")
    highest = max(map(max, numbers.values()))
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    said = []
    for (name, seen), line in zip(numbers.items(), LINES, strict=False):
        end, steps = len(seen), len(errors[name])
        thin = line | {"linewidth": 1.2, "markevery": max(1, steps // 9)}
        axes.semilogy(range(1, end + 1), seen, label=name, **thin)
        if end == steps:
            said.append(f"{name}: a number in all {steps} steps")
            continue
        said.append(f"{name}: numbers up to step {end}, then none")
        axes.axvline(end + 1, color=INK, linestyle=":")
        cross = {"color": line["color"], "markersize": 14, "markeredgecolor": INK}
        axes.plot(end + 1, 30 * highest, "X", **cross)
        axes.annotate("no number", (end + 1, 30 * highest), (12, 0), textcoords="offset points")
    axes.set(xlabel="step (tokens)", ylabel="relative error\nof the logits (1)")
    axes.set_ylim(highest / 1e3, highest * 1e3)
    axes.legend(loc="upper left")
    return figure, "; ".join(said) + "."


@drawing
def choices(
    words: Sequence[str], before: Sequence[float], after: Mapping[str, Sequence[float]]
) -> Drawing:
    """Shares of the next token, hollow, and what a rule makes of them, filled: a panel for each.

    words    the tokens; before: their shares; after: rule -> their shares then
    Errors: ValueError for no rules, or shares that do not fit the words.
    """
    if not after:
        raise ValueError("got no rules, expected at least one")
    figure = new_figure(7.6, 1.1 + 0.33 * len(words))
    panels = figure.subplots(1, len(after), sharex=True, sharey=True, squeeze=False)[0]
    places = range(len(words))
    for axes, (rule, shares) in zip(panels, after.items(), strict=True):
        need_equal_lengths(words=words, before=before, after=shares)
        axes.barh(places, shares, height=0.5, color=BLUE, label="after")
        axes.barh(places, before, facecolor="none", edgecolor=INK, label="before")
        axes.set(title=rule, xlabel="probability (1)", xlim=(0, 1), xticks=(0, 0.5, 1))
    panels[0].set_yticks(places, [repr(word) for word in words])
    panels[0].set(ylabel="next token", ylim=(len(words) - 0.5, -0.5))
    panels[-1].legend(loc="lower right")
    said = "; ".join(f"{rule}: {_left(shares)}" for rule, shares in after.items())
    return figure, f"Hollow: before. Filled: {said}."


@drawing
def gpu_filling(
    weights: float, texts: int, states: Mapping[int, float], caches: Mapping[int, float]
) -> Drawing:
    """One GPU as squares of 1 GB: weights, and what several texts keep of their past; over length.

    weights          bytes of the weights; texts: how many are written at once
    states, caches   tokens -> bytes that ONE text keeps, as a state, and as a cache
    Errors: ValueError for no lengths, or other ones in states than in caches.
    """
    _check_filling(states, caches)
    figure = new_figure(2 + 1.8 * len(states), 4.2)
    grid = figure.subplots(2, len(states), squeeze=False)
    for column, n in zip(grid.T, states, strict=True):
        for axes, kind in zip(column, (states, caches), strict=True):
            _squares(axes)(weights, texts * kind[n])
        column[0].set_title(f"{n:,} tokens")
    for axes, name in zip(grid[:, 0], ("state", "key-value cache"), strict=True):
        axes.text(-0.8, 4, name, rotation=90, va="center", ha="center")
    _square_legend(figure)
    said = ", ".join(f"{in_k(n)}: {_fits(weights, caches[n])}" for n in states)
    room = _fits(weights, next(iter(states.values())))
    return figure, (
        f"{texts} texts at once. With states {room} would fit at any length; with caches {said}."
    )


@drawing
def gpu_filling_mover(
    weights: float, texts: int, states: Mapping[int, float], caches: Mapping[int, float]
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: `gpu_filling` at one length, and the function that sets it."""
    _check_filling(states, caches)
    figure = new_figure(5.4, 3.1)
    both = figure.subplots(1, 2)
    fill = [_squares(axes) for axes in both]
    both[0].set_title("state")
    both[1].set_title("key-value cache")
    _square_legend(figure)

    def move(n: float) -> str:
        kept = states[int(n)], caches[int(n)]
        for set_squares, one in zip(fill, kept, strict=True):
            set_squares(weights, texts * one)
        state, cache = (f"{texts * one / 1e9:,.1f} GB" for one in kept)
        return (
            f"{n:,} tokens, {texts} texts: states {state}, caches {cache}. At most "
            f"{_fits(weights, kept[0])} and {_fits(weights, kept[1])} texts fit."
        )

    return figure, move


def in_k(n: int) -> str:
    """1024 -> 1K, 1048576 -> 1M, 300 -> 300."""
    for size, letter in ((2**20, "M"), (2**10, "K")):
        if n >= size:
            return f"{n / size:g}{letter}"
    return str(n)


def _slowed(name: str, times: Mapping[int, float]) -> str:
    (first, start), (last, end) = min(times.items()), max(times.items())
    return f"{name}, {in_k(first)} to {in_k(last)}: {_ms(start)} to {_ms(end)} ms"


def _ms(seconds: float) -> str:
    """Two digits, or whole milliseconds."""
    return f"{1e3 * seconds:.2g}" if seconds < 0.01 else f"{1e3 * seconds:,.0f}"


def _up_to_the_first_gap(values: Sequence[float]) -> list[float]:
    return list(takewhile(lambda x: 0 < x < math.inf, values))


def _left(shares: Sequence[float]) -> str:
    left = sum(share > 0 for share in shares)
    return f"{left} of {len(shares)} tokens left, the first with {100 * shares[0]:.0f} %"


def _fits(weights: float, one: float) -> str:
    return f"{max(0, int((GPU_GB * 1e9 - weights) // one)):,}"


def _squares(axes: Axes) -> Callable[[float, float], None]:
    """80 squares, and the function that fills them with weights and with what the texts keep."""
    axes.set_axis_off()
    mesh = axes.pcolormesh(
        np.zeros((GPU_GB // PER_ROW, PER_ROW)), cmap=ListedColormap(["white", INK, BLUE]),
        vmin=0, vmax=2, edgecolors="#777777", linewidth=0.5,
    )  # fmt: skip
    rows = GPU_GB // PER_ROW
    axes.set(aspect="equal", xlim=(-0.1, PER_ROW + 0.1), ylim=(rows + 0.1, -0.1))
    paper = dict(facecolor="white", edgecolor=ORANGE, linewidth=2)
    middle = PER_ROW / 2, rows / 2
    full = axes.text(*middle, "", ha="center", va="center", fontweight="bold", bbox=paper)

    def fill(weights: float, kept: float) -> None:
        place = np.arange(GPU_GB)
        ends = math.ceil(weights / 1e9), math.ceil((weights + kept) / 1e9)
        colour = np.where(place < ends[0], 1, np.where(place < ends[1], 2, 0))
        mesh.set_array(colour.reshape(-1, PER_ROW))
        too_much = weights + kept > GPU_GB * 1e9
        full.set_text(f"does not fit:\n{(weights + kept) / 1e9:,.0f} GB" if too_much else "")
        full.get_bbox_patch().set_visible(too_much)

    fill(0, 0)
    return fill


def _square_legend(figure: Figure) -> None:
    looks = {"weights": INK, "the past of the texts": BLUE, "free": "white"}
    boxes = [Patch(facecolor=c, edgecolor="#777777", label=name) for name, c in looks.items()]
    figure.legend(handles=boxes, loc="outside lower center", ncols=3)


def _check_filling(states: Mapping[int, float], caches: Mapping[int, float]) -> None:
    if not states or list(states) != list(caches):
        raise ValueError(
            f"got states at {list(states)} and caches at {list(caches)} tokens; expected the same "
            "lengths, at least one"
        )
