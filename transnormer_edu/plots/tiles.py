"""Tiles: what fits where, what moves, and what that does to the speed."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from transnormer_edu.plots.style import (
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

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1, "bytes"))


@drawing
def what_fits(things: Mapping[str, float], places: Mapping[str, float]) -> Drawing:
    """Sizes of things as bars, sizes of places as vertical lines: what ends left of a line fits.

    things, places   name -> bytes, above 0
    Errors: ValueError for no things, fewer than two places, or a size that is not above 0.
    """
    _need_positive(**things)
    _need_positive(**places)
    if len(places) < 2:
        raise ValueError(f"got {len(places)} place, expected at least two to compare")
    figure = new_figure(height=1.6 + 0.36 * len(things))
    axes = figure.subplots()
    least = min(things.values()) / 10
    for row, size in enumerate(things.values()):
        axes.barh(row, size - least, left=least, height=0.55, color=PALE, edgecolor=INK)
    for (name, size), dash in zip(places.items(), ("-", "--", "-.", ":") * 9, strict=False):
        axes.axvline(size, color=ORANGE, linestyle=dash, label=f"{name}, {said(size)}", zorder=1.5)
    named = [f"{name}, {said(size)}" for name, size in things.items()]
    axes.set_yticks(range(len(things)), named)
    axes.set(xscale="log", xlabel="size (bytes)", ylabel="thing (name)")
    axes.set(ylim=(len(things) - 0.5, -0.5), xlim=(least, 8 * max(places.values())))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    near = [name for name, size in things.items() if size <= min(places.values())]
    far = [name for name, size in things.items() if size > sorted(places.values())[-2]]
    return figure, (
        f"What ends to the left of a line fits there. In every place: {', '.join(near)}; only in "
        f"the largest: {', '.join(far)}."
    )


@drawing
def moved(forms: Mapping[str, float], least: str) -> Drawing:
    """Bytes that each form moves, in multiples of what the form named `least` moves.

    Errors: ValueError for no forms, bytes not above 0, or a name that is not among them.
    """
    _need_positive(**forms)
    if least not in forms:
        raise ValueError(f"got least {least!r}, expected one of {', '.join(forms)}")
    figure = new_figure(height=1.0 + 0.45 * len(forms))
    axes = figure.subplots()
    times = {name: size / forms[least] for name, size in forms.items()}
    for row, (name, factor) in enumerate(times.items()):
        axes.barh(row, factor, height=0.55, color=PALE, edgecolor=INK)
        axes.annotate(
            f"{factor:.3g} ×  ({said(forms[name])})", (factor, row), (8, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axes.axvline(1, color=INK, linestyle="--")
    axes.set_yticks(range(len(forms)), list(forms))
    axes.set(xlabel="moved, in multiples of the least (1)", ylabel="form (name)")
    axes.set(ylim=(len(forms) - 0.5, -0.5), xlim=(0, 1.3 * max(times.values())))
    listed = ", ".join(f"{name} {factor:.3g}" for name, factor in times.items())
    return figure, f"Bytes moved, in multiples of the least possible: {listed}."


@drawing
def roofline(
    bandwidth: float,
    peak: float,
    forms: Mapping[str, tuple[float, float]],
    measured: Mapping[str, tuple[float, float, float]],
) -> Drawing:
    """Speed over arithmetic intensity: no point can lie above min(intensity * bandwidth, peak).

    bandwidth   bytes per second; peak: operations per second
    forms       name -> (operations, bytes): filled, drawn on the roof
    measured    name -> (operations, bytes, seconds): hollow, drawn where it was seen
    Errors: ValueError for no forms, or a number that is not above 0.
    """
    _need_positive(bandwidth=bandwidth, peak=peak)
    if not forms:
        raise ValueError("got no forms, expected at least one with its operations and bytes")
    for name, numbers in (*forms.items(), *measured.items()):
        _need_positive(**{name: min(numbers)})
    figure = new_figure(7.6, 4.6)
    axes = figure.subplots()
    bend = peak / bandwidth
    _roof(axes, bandwidth, peak)
    for (name, (work, moves)), look in zip(forms.items(), LINES * len(forms), strict=False):
        mark = {"color": look["color"], "marker": look["marker"], "linestyle": ""}
        speed = min(work / moves * bandwidth, peak)
        axes.plot(work / moves, speed, label=name, markersize=9, **mark)
    hollow = {"color": INK, "markerfacecolor": "none", "markeredgewidth": 2, "linestyle": ""}
    for (name, (work, moves, time)), mark in zip(
        measured.items(), "Dvp*" * len(measured), strict=False
    ):
        label = f"measured: {name}"
        axes.plot(work / moves, work / time, marker=mark, markersize=11, label=label, **hollow)
    axes.legend(loc="upper left")
    slow = [name for name, (work, moves) in forms.items() if work / moves < bend]
    fast = [name for name in forms if name not in slow]
    reached = ", ".join(
        f"{name} {work / time / min(work / moves * bandwidth, peak):.2f}"
        for name, (work, moves, time) in measured.items()
    )
    return figure, (
        f"The roof bends at {bend:.0f} operations per byte. Memory is the limit of "
        f"{', '.join(slow) or 'none'}; arithmetic that of {', '.join(fast) or 'none'}. Measured, "
        f"as a share of the roof above: {reached or 'none'}."
    )


def _roof(axes: Axes, bandwidth: float, peak: float) -> None:
    bend = peak / bandwidth
    low, high = 0.2, 20 * bend
    axes.plot([low, bend, high], [low * bandwidth, peak, peak], color=INK, zorder=1)
    axes.axvline(bend, color=INK, linestyle=":", linewidth=1, zorder=1)
    axes.annotate(f"bend: {bend:.0f}", (bend, low * bandwidth), (4, 4), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low * bandwidth, 5 * peak))
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.set(xlabel="arithmetic intensity (operations per byte)", ylabel="speed (operations per s)")


@drawing
def block_cost(
    blocks: Sequence[int],
    predicted: Mapping[str, Sequence[float]],
    measured: Sequence[float],
    unit: str,
) -> Drawing:
    """Cost over the size of a chunk: predicted curves and measured points, axes logarithmic.

    predicted   name -> cost at each size; measured: the same, seen; unit: as in "time (ms)"
    Errors: ValueError for series of unequal length, none or too many, or a cost not above 0.
    """
    need_few("predictions", predicted)
    need_equal_lengths(blocks=blocks, measured=measured, **predicted)
    _need_positive(measured=min(measured), predicted=min(map(min, predicted.values())))
    figure = new_figure(height=3.8)
    axes = figure.subplots()
    for (name, values), look in zip(predicted.items(), LINES, strict=False):
        axes.plot(blocks, values, label=name, **look | {"marker": ""})
    axes.plot(
        blocks, measured, "o", color=INK, markersize=8, markerfacecolor="none", label="measured"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(blocks, [str(block) for block in blocks])
    axes.minorticks_off()
    axes.set(xlabel="rows of a chunk, C (tokens)", ylabel=unit)
    axes.legend(loc="upper center")
    best = blocks[min(range(len(blocks)), key=lambda i: measured[i])]
    return figure, f"Lines: predicted; rings: measured. The fastest measured chunk has {best} rows."


def said(size: float) -> str:
    """A number of bytes in the largest unit that leaves at least 1: 65536 is '65.5 KB'."""
    unit, name = next(pair for pair in UNITS if size >= pair[0] or pair[0] == 1)
    return f"{size / unit:.3g} {name}"


def _need_positive(**numbers: float) -> None:
    if not numbers or min(numbers.values()) <= 0:
        raise ValueError(f"got {numbers or 'nothing'}, expected at least one, all above 0")
