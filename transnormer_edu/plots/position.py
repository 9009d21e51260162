"""Where a token stands: arrows that turn, the ladder of their angles, and positions gone wrong."""

import math
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from torch import Tensor

from transnormer_edu.plots.future import without_future
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
def arrows(q: float, k: float, theta: float, pairs: Sequence[tuple[int, int]]) -> Drawing:
    """A query feature and a key feature as arrows, turned by theta per token, for several (t, s).

    q, k    lengths of the arrows; theta: radians per token; pairs: position of query and of key
    Errors: ValueError for no pairs, or more than four.
    """
    if not 1 <= len(pairs) <= 4:
        raise ValueError(f"got {len(pairs)} pairs of positions, expected 1 to 4")
    figure = new_figure(2.6 * len(pairs), 3.6)
    panels = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
    for axes, (t, s) in zip(panels, pairs, strict=True):
        _frame(axes, max(abs(q), abs(k)))
        _turn(_arrow(axes, BLUE, "-", "query"), q, theta * t)
        _turn(_arrow(axes, ORANGE, "--", "key"), k, theta * s)
        axes.set_title(f"query at {t}, key at {s}\nscore {_score(q, k, theta, t, s):.3g}")
    panels[0].set_ylabel("x sin θt (1)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    said = ", ".join(f"{_score(q, k, theta, t, s):.3g} for ({t}, {s})" for t, s in pairs)
    return figure, f"Scores of a query at t and a key at s, as (t, s): {said}."


@drawing
def arrows_mover(
    q: float, k: float, theta: float, distance: int
) -> tuple[Figure, Callable[[int], str]]:
    """For `slider`: both arrows, and the function that puts the query at t, `distance` ahead."""
    figure = new_figure(4.2, 4.5)
    axes = figure.subplots()
    _frame(axes, max(abs(q), abs(k)))
    axes.set_ylabel("x sin θt (1)")
    query, key = _arrow(axes, BLUE, "-", "query"), _arrow(axes, ORANGE, "--", "key")
    figure.legend(loc="outside lower center", ncols=2)

    def move(t: int) -> str:
        _turn(query, q, theta * t)
        _turn(key, k, theta * (t - distance))
        score = _score(q, k, theta, t, t - distance)
        return f"Query at {t}, key at {t - distance}: the score is {score:.3f}."

    return figure, move


@drawing
def maps(weights: Mapping[str, Float[Tensor, "n n"]]) -> Drawing:
    """Weights of query t (down) and key s (across) in shades, black 1, white -1, future hatched.

    Errors: ValueError for no map, more than four, or a weight outside -1 to 1.
    """
    if not 1 <= len(weights) <= 4:
        raise ValueError(f"got {len(weights)} maps, expected 1 to 4")
    ratios = [1.0] * len(weights) + [0.06]
    figure = new_figure(1.2 + 2.2 * len(weights), 2.9)
    *panels, scale = figure.subplots(1, len(weights) + 1, width_ratios=ratios)
    for axes, (name, weight) in zip(panels, weights.items(), strict=True):
        if weight.tril().abs().max() > 1:
            raise ValueError(f"{name} has a weight beyond 1, expected all from -1 to 1")
        image = _shades(axes, weight)
        axes.set_title(name)
    panels[0].set_ylabel("reads (token t)")
    figure.colorbar(image, cax=scale)
    scale.set(xlabel="(1)", title="weight")
    seen = {name: (weight.tril().min(), weight.tril().max()) for name, weight in weights.items()}
    said = "; ".join(f"{name}: from {low:.2f} to {top:.2f}" for name, (low, top) in seen.items())
    return figure, f"Along each diagonal the weights are equal. {said}. Hatched: the future."


@drawing
def ladder(
    start: Float[Tensor, "h d"], length: int, learned: Float[Tensor, "h d"] | None = None
) -> Drawing:
    """Angle per token of every feature, head after head, and the least that turns once in a text.

    start     radians per token; length: tokens of the text
    learned   the same after training, as dots without their sign, which a cosine does not see
    Errors: ValueError for a length below 1 or learned angles of another shape.
    """
    if length < 1:
        raise ValueError(f"length is {length}, expected at least 1 token")
    heads, size = start.shape
    figure = new_figure(height=3.8)
    axes = figure.subplots()
    axes.semilogy(range(heads * size), start.flatten(), color=BLUE, label="at the start")
    if learned is not None:
        if learned.shape != start.shape:
            raise ValueError(f"learned is {tuple(learned.shape)}, expected {tuple(start.shape)}")
        axes.semilogy(learned.flatten().abs(), "x", color=ORANGE, label="after training")
    slowest = 2 * math.pi / length
    axes.axhline(slowest, color=INK, linestyle="--", label=f"one turn in {length} tokens")
    above = axes.get_xaxis_transform()
    for head in range(heads):  # they are counted from 1
        axes.axvline(head * size, color="#888888", linewidth=1, linestyle=":")
        axes.text((head + 0.5) * size, 1.02, f"{head + 1}", transform=above, ha="center")
    axes.text(0, 1.09, "head", transform=axes.transAxes)
    axes.set(xlabel="feature (number, over all heads)", ylabel="angle θ (radians per token)")
    axes.legend(loc="lower left")
    turning = [
        int((theta.abs() >= slowest).sum()) for theta in (start, learned) if theta is not None
    ]
    then = f", after training {turning[1]}" if learned is not None else ""
    return figure, (
        f"θ falls from {start.max():.3g} to {start.min():.1e} radians per token over {heads} heads "
        f"of {size} features; {turning[0]} of {start.numel()} features turn at least once "
        f"in {length} tokens{then}."
    )


@drawing
def rounded_positions(exact: Sequence[float], rounded: Sequence[float], position: int) -> Drawing:
    """Score over the distance from a query at `position`: exact angles, and rounded positions."""
    need_equal_lengths(exact=exact, rounded=rounded)
    figure = new_figure(height=3.3)
    axes = figure.subplots()
    axes.plot(exact, label="exact positions", **LINES[0])
    axes.plot(rounded, label="positions in bfloat16", **LINES[1])
    axes.set(xlabel=f"distance from the query at {position} (tokens)", ylabel="score (1)")
    axes.legend(loc="upper right")
    worst = max(abs(a - b) for a, b in zip(exact, rounded, strict=True))
    return figure, (
        f"With positions rounded to bfloat16 the score of a query at {position} goes in steps and "
        f"is off by up to {worst:.2f}."
    )


@drawing
def loss_over_context(
    contexts: Sequence[int], losses: Mapping[str, Sequence[float]], trained: int
) -> Drawing:
    """Loss on the same tokens over how much of the past was read; the trained length marked.

    contexts, trained   tokens; losses: name -> nats per token at each context
    Errors: ValueError for no model, too many, or series of unequal length.
    """
    need_few("models", losses)
    figure = new_figure(height=3.6)
    axes = figure.subplots()
    said = []
    for (name, values), line in zip(losses.items(), LINES, strict=False):
        need_equal_lengths(contexts=contexts, **{name: values})
        axes.semilogx(contexts, values, base=2, label=name, **line)
        said.append(f"{name} {values[-1] - values[list(contexts).index(trained)]:+.2f}")
    axes.axvline(trained, color=INK, linestyle=":")
    axes.text(
        trained, 1.02, "length in training", transform=axes.get_xaxis_transform(), ha="center"
    )
    axes.set_xticks(contexts, [str(n) for n in contexts])
    axes.minorticks_off()
    axes.set(xlabel="past that is read (tokens)", ylabel="loss (nats per token)")
    axes.legend(loc="upper left")
    return figure, (
        f"Change of the loss from {trained} to {contexts[-1]} tokens, in nats: {'; '.join(said)}."
    )


def _score(q: float, k: float, theta: float, t: int, s: int) -> float:
    return round(q * k * math.cos(theta * (t - s)), 9) + 0.0  # + 0.0: never "-0"


def _frame(axes: Axes, radius: float) -> None:
    reach = 1.25 * radius
    axes.add_artist(Circle((0, 0), radius, fill=False, color="#888888", linewidth=1))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="x cos θt (1)")


def _shades(axes: Axes, weight: Float[Tensor, "n n"]) -> AxesImage:
    n = len(weight)
    edges = (0.5, n + 0.5)
    extent = (*edges, *edges[::-1])
    image = axes.imshow(without_future(weight), cmap="Greys", vmin=-1, vmax=1, extent=extent)
    stairs = [s + 0.5 for s in range(n + 1)]
    look = {"facecolor": "none", "edgecolor": "#999999", "hatch": "///", "linewidth": 0.5}
    axes.fill_between(stairs, stairs, 0.5, step="post", **look)
    axes.grid(visible=False)
    axes.set(xlabel="looks at (token s)", ylim=edges[::-1])
    return image


def _arrow(axes: Axes, color: str, style: str, name: str) -> Line2D:
    """A line from the middle with a dot at its end."""
    return axes.plot([0, 0], [0, 0], style, color=color, marker="o", markevery=[1], label=name)[0]


def _turn(arrow: Line2D, length: float, angle: float) -> None:
    arrow.set_data([0, length * math.cos(angle)], [0, length * math.sin(angle)])
