"""The choice of the next token: how temperature reshapes a distribution."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from transnormer_edu.plots.style import BLUE, Drawing, drawing, need_equal_lengths, new_figure


def shares(logits: Float[Tensor, "v"], temperature: float) -> Float[Tensor, "v"]:
    """p_i = exp(z_i / T) / sum_j exp(z_j / T). ValueError for a temperature that is not above 0."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a number above 0")
    return (logits.double() / temperature).softmax(dim=0)


@drawing
def next_token(
    logits: Float[Tensor, "v"], words: Sequence[str], temperatures: Sequence[float] = (0.5, 1, 2)
) -> Drawing:
    """Probability of the likeliest next tokens at several temperatures, side by side.

    logits   of the whole vocabulary; words: the names of its likeliest tokens, likeliest first
    Errors: ValueError for no words, more words than logits, or a temperature that is not above 0.
    """
    figure = new_figure(height=0.9 + 0.3 * len(words))
    panels = figure.subplots(1, len(temperatures), sharey=True, squeeze=False)[0]
    panels[0].set_ylabel("next token")
    tops = []
    for axes, temperature in zip(panels, temperatures, strict=True):
        p = _likeliest(logits, words, temperature)
        _bars(axes, p, words)
        axes.set_title(f"temperature {temperature:g}")
        tops.append(f"{100 * p[0]:.0f} % at temperature {temperature:g}")
    return figure, f"The likeliest next token, {words[0]!r}, has " + ", ".join(tops) + "."


@drawing
def next_token_mover(
    logits: Float[Tensor, "v"], words: Sequence[str]
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: a figure of the same bars, and the function that sets its temperature."""
    figure = new_figure(6, 0.9 + 0.3 * len(words))
    axes = figure.subplots()
    axes.set_ylabel("next token")
    bars = _bars(axes, _likeliest(logits, words, 1.0), words)

    def move(temperature: float) -> str:
        p = _likeliest(logits, words, temperature)
        for bar, width in zip(bars, p, strict=True):
            bar.set_width(width)
        return f"At temperature {temperature:g}, {words[0]!r} has {100 * p[0]:.0f} %."

    return figure, move


def _likeliest(logits: Tensor, words: Sequence[str], temperature: float) -> list[float]:
    need_equal_lengths(words=words)
    if len(words) > len(logits):
        raise ValueError(
            f"got {len(words)} words for {len(logits)} logits, expected at most so many"
        )
    return shares(logits, temperature).topk(len(words)).values.tolist()


def _bars(axes: Axes, p: Sequence[float], words: Sequence[str]):
    bars = axes.barh(range(len(words)), p, color=BLUE, edgecolor="black")
    axes.set_yticks(range(len(words)), [repr(word) for word in words])
    axes.set(
        xlabel="probability (1)", xlim=(0, 1), xticks=(0, 0.5, 1), ylim=(len(words) - 0.5, -0.5)
    )
    return bars
