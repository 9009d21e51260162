"""What grows with the length of a text, and how fast: time, memory, work."""

from collections.abc import Mapping, Sequence

from transnormer_edu.plots.style import (
    LINES,
    Drawing,
    drawing,
    need_equal_lengths,
    need_few,
    new_figure,
)

POWERS = {1: "n", 2: "n²"}


@drawing
def growth(lengths: Sequence[int], costs: Mapping[str, Sequence[float]], unit: str) -> Drawing:
    """Costs over length, both axes logarithmic, beside straight lines that grow with n and n².

    costs   name -> cost at each length; unit: what they are, with its unit, as in "time (s)"

    The two lines start at the smallest of the first costs. The sentence gives the factors of the
    last doubling, or whatever the last step is.
    Errors: ValueError for series of unequal length, fewer than two lengths, costs not above 0.
    """
    need_few("costs", costs)
    need_equal_lengths(lengths=lengths, **costs)
    if len(lengths) < 2 or min(min(values) for values in costs.values()) <= 0:
        raise ValueError("expected at least two lengths, and every cost above 0")
    figure = new_figure(height=3.6)
    axes = figure.subplots()
    start = min(values[0] for values in costs.values())
    for power, name in POWERS.items():
        line = [start * (n / lengths[0]) ** power for n in lengths]
        axes.plot(lengths, line, color="#777777", linewidth=1, linestyle=":")
        axes.annotate(f"as {name}", (lengths[-1], line[-1]), (4, -4), textcoords="offset points")
    for (name, values), style in zip(costs.items(), LINES, strict=False):
        axes.plot(lengths, values, label=name, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set(xlabel="length n (tokens)", ylabel=unit)
    axes.legend(loc="upper left")
    return figure, _last_step(lengths, costs)


def _last_step(lengths: Sequence[int], costs: Mapping[str, Sequence[float]]) -> str:
    said = ", ".join(f"{name} {values[-1] / values[-2]:.1f}" for name, values in costs.items())
    step = lengths[-1] / lengths[-2]
    return (
        f"From {lengths[-2]:,} to {lengths[-1]:,} tokens each cost is multiplied by: {said}. "
        f"What grows with n is multiplied by {step:g}, what grows with n² by {step**2:g}."
    )
