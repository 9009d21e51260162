"""Pictures of training: what a token costs, the learning rate, losses, and speed over length."""

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

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
def token_cost(tokens: Sequence[str], probabilities: Sequence[float]) -> Drawing:
    """-log2 p over p, and on it the price of each token in bits.

    Errors: ValueError for a probability outside (0, 1] or not one for each token.
    """
    need_equal_lengths(tokens=tokens, probabilities=probabilities)
    if not all(0 < p <= 1 for p in probabilities):
        raise ValueError(f"got probabilities {list(probabilities)}; expected each above 0, up to 1")
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    grid = [i / 400 for i in range(4, 401)]
    axes.plot(grid, [-math.log2(p) for p in grid], color=INK, label="−log₂ p")
    bits = [-math.log2(p) for p in probabilities]
    axes.plot(probabilities, bits, "o", color=ORANGE, markersize=9)
    for token, p, cost in zip(tokens, probabilities, bits, strict=True):
        axes.annotate(f"{token}: {cost:.2g} bits", (p, cost), (10, 6), textcoords="offset points")
    axes.set(
        xlabel="probability p that the model gave to the token (1)",
        ylabel="cost of the token (bits)",
        xlim=(0, 1.05),
        ylim=(0, max(7, *bits) + 0.3),
    )
    costs = ", ".join(f"{t} {b:.2g}" for t, b in zip(tokens, bits, strict=True))
    return figure, (
        f"The cost of a token is −log₂ p: it rises without end as p falls to 0. Here, in bits: "
        f"{costs}; together {sum(bits):.2g}."
    )


@drawing
def ruler(bits: Mapping[str, float]) -> Drawing:
    """Bits per byte of several texts on one scale from 0 to 8.

    Errors: ValueError for nothing to show or a value outside 0 to 8.1.
    """
    need_equal_lengths(bits=list(bits))
    outside = [name for name, value in bits.items() if not 0 <= value <= 8.1]
    if outside:
        raise ValueError(f"{outside[0]} has {bits[outside[0]]} bits per byte, expected 0 to 8")
    ordered = sorted(bits, key=bits.get)
    figure = new_figure(height=1 + 0.4 * len(bits))
    axes = figure.subplots()
    axes.hlines(range(len(ordered)), 0, [bits[name] for name in ordered], color=BLUE, linewidth=3)
    axes.plot([bits[name] for name in ordered], range(len(ordered)), "o", color=ORANGE, ms=9)
    axes.set_yticks(range(len(ordered)), ordered)
    axes.set(xlabel="needed (bits per byte)", ylabel="text", xlim=(0, 8.2))
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    return figure, f"From few bits per byte to many: {'; '.join(ordered)}."


@drawing
def schedule(rates: Sequence[float], warmup: int) -> Drawing:
    """The learning rate of every step, the end of the warm-up marked.

    rates    of steps 1, 2, ...; warmup: steps over which it rises
    Errors: ValueError for no rates, or a warm-up longer than they are.
    """
    need_equal_lengths(rates=rates)
    if not 0 <= warmup <= len(rates):
        raise ValueError(f"warmup is {warmup}, expected 0 to the number of steps, {len(rates)}")
    figure = new_figure(height=2.9)
    axes = figure.subplots()
    axes.plot(range(1, len(rates) + 1), rates, color=BLUE)
    axes.axvline(max(1, warmup), color=INK, linestyle=":")
    axes.annotate(
        "end of warm-up", (max(1, warmup), 0), (6, 6), textcoords="offset points", fontsize=10
    )
    axes.set(xlabel="step (updates)", ylabel="learning rate (1)", ylim=(0, None))
    return figure, (
        f"The learning rate rises for {warmup} steps to {max(rates):g} and falls along half a "
        f"cosine to {rates[-1]:.2g} at step {len(rates)}."
    )


@drawing
def losses(runs: Mapping[str, Sequence[float]], start: float, at: int | None = None) -> Drawing:
    """Training loss over steps for several runs, beside the loss of a model that knows nothing.

    runs    name -> loss of steps 1, 2, ..., nats per token
    start   ln V, the loss of equal probabilities
    at      the sentence says who is above `start` at this step; None: who ended 1 nat below it
    Errors: ValueError for no run, too many or an empty one, or one without step `at`.
    """
    need_few("runs", runs)
    for name, values in runs.items():
        need_equal_lengths(**{name: values})
    sentence = _who_learned(runs, start - 1) if at is None else _who_is_above(runs, start, at)
    figure = new_figure()
    axes = figure.subplots()
    for (name, values), line in zip(runs.items(), LINES, strict=False):
        every = max(1, len(values) // 8)
        axes.plot(range(1, len(values) + 1), values, label=name, markevery=every, **line)
    axes.axhline(start, color=INK, linestyle=":", linewidth=1.5, label="ln V:\nknows nothing")
    axes.set(xlabel="step (updates)", ylabel="training loss (nats per token)")
    seen = [v for values in runs.values() for v in values if math.isfinite(v)]
    axes.set_ylim(max(0, min(*seen, start) - 1), min(max(*seen, start), 3 * start) + 1)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, sentence


@drawing
def run_mover(
    runs: Mapping[float, Sequence[float]], start: float
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: all runs in grey, and the function that puts one of them in front.

    runs   learning rate -> loss of steps 1, 2, ..., nats per token; start: ln V
    """
    figure = new_figure(6.4, 3.2)
    axes = figure.subplots()
    for values in runs.values():
        axes.plot(range(1, len(values) + 1), values, color="#BBBBBB", linewidth=1)
    front = axes.plot([], [], color=BLUE, linewidth=2.5)[0]
    axes.axhline(start, color=INK, linestyle=":", linewidth=1.5)
    axes.set(xlabel="step (updates)", ylabel="training loss (nats per token)")
    axes.set_ylim(4, 2 * start)

    def move(rate: float) -> str:
        front.set_data(range(1, len(runs[rate]) + 1), runs[rate])
        return f"Learning rate {rate:g}: the loss ends at {_end(runs[rate]):.1f} nats per token."

    return figure, move


@drawing
def rate_sweep(rates: Sequence[float], final_losses: Sequence[float], start: float) -> Drawing:
    """Loss after a short training over the learning rate: too low crawls, too high breaks.

    Errors: ValueError for series of unequal length or fewer than three rates.
    """
    need_equal_lengths(rates=rates, final_losses=final_losses)
    if len(rates) < 3:
        raise ValueError(f"got {len(rates)} rates, expected at least 3: else there is no valley")
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    axes.semilogx(rates, final_losses, **LINES[0])
    best = min(range(len(rates)), key=lambda i: final_losses[i])
    axes.plot(rates[best], final_losses[best], "o", color=ORANGE, markersize=13, fillstyle="none")
    axes.axhline(start, color=INK, linestyle=":", linewidth=1.5, label="ln V: knows nothing")
    axes.legend(loc="upper left")
    axes.set(
        xlabel="highest learning rate (1)",
        ylabel="loss at the end (nats per token)",
        ylim=(min(final_losses) - 1, 1.15 * max(start, *final_losses)),
    )
    inside = "between the ends" if 0 < best < len(rates) - 1 else "at an end of the range"
    return figure, (
        f"The lowest loss (circle) lies {inside}: a rate that is too low crawls, one that is too "
        "high throws away what was learned."
    )


@drawing
def learning_curve(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], zlib: float
) -> Drawing:
    """Bits per byte on held-out text over steps, with what `zlib -9` needs as a line to cross.

    curves   name -> (steps, bits per byte)
    Errors: ValueError for no curve, too many, or steps and values of unequal number.
    """
    need_few("curves", curves)
    figure = new_figure(height=3.8)
    axes = figure.subplots()
    for (name, (steps, bits)), line in zip(curves.items(), LINES, strict=False):
        need_equal_lengths(steps=steps, bits=bits)
        axes.plot(steps, bits, label=name, **line)
    axes.axhline(zlib, color=INK, linestyle=":")
    first = min(steps[0] for steps, _ in curves.values())
    axes.annotate("zlib −9", (first, zlib), (0, -14), textcoords="offset points")
    axes.set(xlabel="step (updates)", ylabel="held-out text (bits per byte)", ylim=(0, None))
    axes.legend(loc="lower left")
    return figure, "; ".join(
        f"{name} {_crossing(steps, bits, zlib)}" for name, (steps, bits) in curves.items()
    ) + "."


@drawing
def gradient_norms(norms: Sequence[float], clip: float) -> Drawing:
    """The gradient's norm before clipping, step by step, and the limit.

    Errors: ValueError for no norms or a limit that is not above 0.
    """
    need_equal_lengths(norms=norms)
    if not clip > 0:
        raise ValueError(f"clip is {clip}, expected a number above 0")
    figure = new_figure(height=2.9)
    axes = figure.subplots()
    axes.plot(range(1, len(norms) + 1), norms, color=BLUE, linewidth=1)
    axes.axhline(clip, color=ORANGE, linestyle="--", label=f"limit {clip:g}")
    axes.set(xlabel="step (updates)", ylabel="norm of the gradient (1)", ylim=(0, None))
    axes.legend(loc="upper right")
    share = sum(norm > clip for norm in norms) / len(norms)
    many = {0: "None", 1: "All"}.get(share, "Fewer than half" if share < 0.5 else "Half or more")
    return figure, f"{many} of the gradients were longer than {clip:g} and were shortened."


@drawing
def speed_over_length(lengths: Sequence[int], speeds: Mapping[str, Sequence[float]]) -> Drawing:
    """Training speed over context length, relative to each model's fastest.

    lengths   tokens; speeds: name -> tokens per second at each of them
    Errors: ValueError for series of unequal length, or a speed that is not above 0.
    """
    need_few("models", speeds)
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    said = []
    for (name, values), line in zip(speeds.items(), LINES, strict=False):
        need_equal_lengths(lengths=lengths, **{name: values})
        if min(values) <= 0:
            raise ValueError(f"{name} has a speed of {min(values)}, expected all above 0")
        share = [100 * value / max(values) for value in values]
        axes.semilogx(lengths, share, base=2, label=name, **line)
        said.append(f"{name} keeps {share[-1]:.0f} % of its highest speed")
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set(
        xlabel="length of a window (tokens)",
        ylabel="training speed\n(% of the model's highest)",
        ylim=(0, 108),
    )
    axes.legend(loc="lower left")
    return figure, f"At {lengths[-1]} tokens " + "; ".join(said) + "."


def _who_learned(runs: Mapping[str, Sequence[float]], limit: float) -> str:
    learned = [name for name, values in runs.items() if _end(values) < limit]
    stalled = [name for name in runs if name not in learned]
    return (
        f"Learned (ended below {limit:.1f} nats per token): {', '.join(learned) or 'none'}. "
        f"Did not: {', '.join(stalled) or 'none'}."
    )


def _who_is_above(runs: Mapping[str, Sequence[float]], start: float, at: int) -> str:
    short = [name for name, values in runs.items() if not 1 <= at <= len(values)]
    if short:
        raise ValueError(f"{short[0]} has {len(runs[short[0]])} steps, expected step {at} in it")
    said = (
        f"{name} is {'above' if values[at - 1] > start else 'below'} ln V"
        for name, values in runs.items()
    )
    return f"At step {at}: {', '.join(said)}."


def _end(values: Sequence[float]) -> float:
    """Mean of the last tenth of a noisy series; infinite where it holds no number."""
    tail = values[-max(1, len(values) // 10) :]
    mean = sum(tail) / len(tail)
    return mean if math.isfinite(mean) else math.inf


def _crossing(steps: Sequence[int], bits: Sequence[float], zlib: float) -> str:
    if bits[-1] >= zlib:
        return "has not fallen below zlib's line"
    return "starts above zlib's line and ends below it" if bits[0] >= zlib else "is below zlib's"
