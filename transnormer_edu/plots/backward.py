"""The backward pass as a picture: the state runs forward, its gradient runs back."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from transnormer_edu.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PALE,
    Drawing,
    drawing,
    need_equal_lengths,
    new_figure,
)

BOX = {"boxstyle": "round,pad=0.5", "facecolor": PALE, "edgecolor": INK}


@drawing
def two_walks(states: Sequence[float], grads: Sequence[float], decay: float) -> Drawing:
    """Tokens in a row; above them the state S, left to right, below its gradient G, right to left.

    states, grads   S and G at each token, single numbers (dk = dv = 1); decay: λ, written on arrows
    Errors: ValueError for series of unequal length or fewer than two tokens.
    """
    need_equal_lengths(states=states, grads=grads)
    if len(states) < 2:
        raise ValueError(f"got {len(states)} token, expected at least two")
    figure = new_figure(7.5, 3.4)
    axes = figure.subplots()
    axes.set(xlim=(-0.9, len(states) - 0.6), ylim=(-1.4, 1.4))
    axes.set_axis_off()
    for t in range(len(states)):
        axes.text(t, 0, f"token {t + 1}", ha="center", va="center", bbox=BOX)
    _walk(axes, "S", states, 1, decay, BLUE, "-", "+ k v")
    _walk(axes, "G", grads, -1, decay, ORANGE, "--", "+ q do")
    axes.text(-0.85, 1, "forward:\nwhat has\nbeen written", va="center", color=BLUE)
    axes.text(-0.85, -1, "backward:\nwhat will be\nasked for", va="center", color=ORANGE)
    return figure, (
        f"The state S runs forward, {_list(states)}, and gives dq. Its gradient G runs back, "
        f"{_list(grads[::-1])} from the last token to the first, and gives dk and dv."
    )


def _walk(
    axes: Axes,
    name: str,
    values: Sequence[float],
    height: int,
    decay: float,
    colour: str,
    dash: str,
    added: str,
):
    """One row of values: an arrow to each from its token, and from each to the next on its way."""
    look = {"arrowstyle": "->", "color": colour, "linestyle": dash, "linewidth": 2}
    for t, value in enumerate(values):
        axes.text(t, height, f"${name}_{t + 1}={value:g}$", ha="center", va="center", fontsize=13)
        axes.annotate("", (t, 0.78 * height), (t, 0.26 * height), arrowprops=look)
        axes.text(t + 0.07, 0.5 * height, added, va="center", color=colour)
        if t:
            ends = (t - 0.28, height), (t - 0.72, height)
            axes.annotate("", *(ends if height > 0 else ends[::-1]), arrowprops=look)
            place = (t - 0.5, 1.22 * height)
            axes.text(*place, f"× {decay:g}", ha="center", va="center", color=colour)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
