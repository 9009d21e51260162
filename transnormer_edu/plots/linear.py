"""Linear attention: the state that fills up, and what its outputs and gradients do."""

import math
from collections.abc import Callable, Mapping, Sequence

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

States = Float[Tensor, "n dk dv"]


@drawing
def state_steps(
    states: States, keys: Sequence[str], values: Sequence[str], after: Sequence[int]
) -> Drawing:
    """The state after some of the tokens: row i is what key i holds, column j how much of value j.

    states        after token 1, 2, ...; keys, values: names of rows and columns
    after         the tokens to show, numbered from 1
    Errors: ValueError for names that do not fit, or a token that is not there.
    """
    _check_states(states, keys, values)
    if not after or not all(1 <= t <= len(states) for t in after):
        raise ValueError(f"got tokens {list(after)}, expected some of 1 to {len(states)}")
    figure = new_figure(7.5, 7.0 / len(after) + 0.9)
    panels = figure.subplots(1, len(after), sharey=True, squeeze=False)[0]
    top = states.abs().max().item()
    for axes, t in zip(panels, after, strict=True):
        _table(axes, states[t - 1], keys, values, top)
        axes.set_title(f"after token {t}")
    panels[0].set_ylabel("key (row)")
    filled = [int((states[t - 1] != 0).sum()) for t in after]
    said = ", ".join(f"{cells} after {t}" for cells, t in zip(filled, after, strict=True))
    size = states[0].numel()
    return figure, f"Cells in use, of {size}: {said} tokens. The table itself never grows."


@drawing
def state_mover(
    states: States, keys: Sequence[str], values: Sequence[str], tokens: Sequence[str]
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: the state, and the function that shows it after token 1, 2, ...

    tokens   what is read, one name for each state
    Errors: ValueError for names that do not fit.
    """
    _check_states(states, keys, values)
    need_equal_lengths(states=states.tolist(), tokens=tokens)
    figure = new_figure(4.2, 4.0)
    axes = figure.subplots()
    image, numbers = _table(axes, states[-1], keys, values, states.abs().max().item())
    axes.set_ylabel("key (row)")
    title = axes.set_title("".join(tokens))

    def move(t: float) -> str:
        state = states[int(t) - 1]
        image.set_data(state.numpy())
        _write(numbers, state, image.norm.vmax)
        title.set_text("".join(tokens[: int(t)]) + "·" * (len(tokens) - int(t)))
        return f"After token {t:g}, {tokens[int(t) - 1]!r}: {int((state != 0).sum())} cells in use."

    return figure, move


@drawing
def gradient_size(sizes: Sequence[float], largest: Mapping[str, Sequence[float]]) -> Drawing:
    """Largest gradient by a score over the size of the scores, both axes logarithmic.

    sizes    typical score, from large to small; largest: name -> largest |gradient| at each
    Errors: ValueError for series of unequal length, no series, or too many.
    """
    need_few("series", largest)
    need_equal_lengths(sizes=sizes, **largest)
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    for (name, values), style in zip(largest.items(), LINES, strict=False):
        axes.loglog(sizes, values, label=name, **style)
    axes.invert_xaxis()
    axes.minorticks_off()
    axes.set(xlabel="size of the scores (1)", ylabel="largest gradient (1)")
    axes.legend(loc="upper left")
    grows = [name for name, values in largest.items() if values[-1] > 2 * values[-2]]
    stays = [name for name in largest if name not in grows]
    return figure, (
        "Towards scores of 0, to the right, the largest gradient goes on growing with "
        f"{' and '.join(grows) or 'none'}; it stays bounded with {' and '.join(stays) or 'none'}."
    )


@drawing
def gradient_ranges(gradients: Mapping[str, Float[Tensor, "pairs"]]) -> Drawing:
    """Where the sizes of gradients lie: median, middle 98 %, and largest, on a logarithmic axis.

    gradients   name -> gradients by the scores, one number for each pair of tokens
    Errors: ValueError for no gradients.
    """
    if not gradients:
        raise ValueError("got no gradients, expected at least one name with its gradients")
    figure = new_figure(height=0.9 + 0.55 * len(gradients))
    axes = figure.subplots()
    said = []
    for row, (name, gradient) in enumerate(gradients.items()):
        size = gradient.abs().double().sort().values
        low, middle, high = (
            size[int(share * (len(size) - 1))].item() for share in (0.01, 0.5, 0.99)
        )
        axes.plot([low, high], [row, row], color=BLUE, linewidth=7, solid_capstyle="butt")
        axes.plot(middle, row, "|", color=INK, markersize=18, markeredgewidth=3)
        axes.plot(size[-1], row, "D", color=INK)
        said.append(f"{name} {_rough(size[-1].item() / middle)}")
    axes.set_xscale("log")
    axes.set_yticks(range(len(gradients)), list(gradients))
    axes.set(
        xlabel="size of a gradient (1)", ylabel="method (name)", ylim=(len(gradients) - 0.5, -0.5)
    )
    return figure, (
        "Bar: the middle 98 %; stroke: the median; diamond: the largest. The largest is, as "
        f"a multiple of the median: {', '.join(said)}."
    )


@drawing
def output_size(outputs: Mapping[str, Float[Tensor, "n"]]) -> Drawing:
    """Size of the output at each token, for several ways to end attention; logarithmic.

    outputs   name -> root mean square of the output at token 1, 2, ...
    Errors: ValueError for series of unequal length, no series, or too many.
    """
    need_few("series", outputs)
    sizes = {name: size.tolist() for name, size in outputs.items()}
    need_equal_lengths(**sizes)
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    for (name, size), style in zip(sizes.items(), LINES, strict=False):
        place = range(1, len(size) + 1)
        axes.loglog(place, size, label=name, markevery=0.15, **style)
    axes.set(xlabel="token (number)", ylabel="size of the output (rms)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    said = ", ".join(f"{name} {size[-1] / size[0]:.2g}" for name, size in sizes.items())
    return figure, f"Size of the last token's output, as a multiple of the first's: {said}."


def _rough(number: float) -> str:
    """Two digits up to 100, beyond only the power of ten: more would not hold elsewhere."""
    return f"{number:.0f}" if number < 100 else f"about {10 ** round(math.log10(number)):,}"


def _check_states(states: States, keys: Sequence[str], values: Sequence[str]) -> None:
    if tuple(states.shape[1:]) != (len(keys), len(values)):
        raise ValueError(
            f"got states {tuple(states.shape)}, {len(keys)} keys and {len(values)} values; "
            "expected states (n, keys, values)"
        )


def _table(axes: Axes, state: Tensor, keys: Sequence[str], values: Sequence[str], top: float):
    """The state as a table of shades with its numbers written in: (image, texts)."""
    image = axes.imshow(state.numpy(), cmap=SHADES, vmin=0, vmax=top)
    axes.set_xticks(range(len(values)), list(values))
    axes.set_yticks(range(len(keys)), list(keys))
    axes.set_xlabel("value (column)")
    axes.grid(False)
    cells = [(i, j) for i in range(len(keys)) for j in range(len(values))]
    numbers = [axes.text(j, i, "", ha="center", va="center", fontsize=10) for i, j in cells]
    _write(numbers, state, top)
    return image, numbers


def _write(numbers: Sequence, state: Tensor, top: float) -> None:
    for text, value in zip(numbers, state.flatten().tolist(), strict=True):
        text.set_text(f"{value:.2g}" if value else "")
        text.set_color("white" if value > top / 2 else INK)
