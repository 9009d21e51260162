"""Speed on a GPU: time over length, what counting bytes foretells, memory, and a GPU kept busy."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from transnormer_edu.plots.style import (
    BLUE,
    INK,
    LINES,
    ORANGE,
    PALE,
    Drawing,
    drawing,
    need_equal_lengths,
    new_figure,
)

MANY_LINES = (
    *LINES,
    {"color": "#8A6A00", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": INK, "linestyle": (0, (1, 3)), "marker": "P"},
)
PER_ROW = 12  # multiprocessors drawn side by side

Curve = tuple[Sequence[int], Sequence[float]]


@drawing
def times(panels: Mapping[str, Mapping[str, Curve]], floors: Mapping[str, Curve]) -> Drawing:
    """Time over length, both axes logarithmic; one panel for each direction, the floor below.

    panels   direction -> name -> (lengths, ms); the same names, in one order, in every panel
    floors   direction -> (lengths, ms): what moving the tensors once would take
    Errors: ValueError for no curves, too many, lengths without times, or a missing floor.
    """
    _check_panels(panels, floors)
    figure = new_figure(7.5, 4.6)
    for axes, (way, curves) in zip(_side_by_side(figure, panels), panels.items(), strict=True):
        for (name, curve), style in zip(curves.items(), MANY_LINES, strict=False):
            need_equal_lengths(lengths=curve[0], ms=curve[1])
            axes.plot(*curve, label=name, **style)
        axes.plot(*floors[way], color="#777777", linewidth=5, alpha=0.5, label="memory floor")
        axes.set(xscale="log", yscale="log", title=way, xlabel="length n (tokens)")
        axes.set_xticks(floors[way][0], [f"{n:,}" for n in floors[way][0]], rotation=30)
        axes.minorticks_off()
    figure.axes[0].set_ylabel("time (ms)")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=10)
    said = "; ".join(_at_the_end(way, curves, floors[way]) for way, curves in panels.items())
    return figure, f"In ms, at {max(next(iter(floors.values()))[0]):,} tokens: {said}."


@drawing
def shares(
    shapes: Sequence[str], panels: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> Drawing:
    """Bars: measured share of the floor's speed; strokes: what the number of moved tensors allows.

    shapes   name of each row; panels: direction -> (measured, allowed), each a share for each row
    Errors: ValueError for series of unequal length, or shares that are not above 0.
    """
    for measured, allowed in panels.values():
        need_equal_lengths(shapes=shapes, measured=measured, allowed=allowed)
        if min(*measured, *allowed) <= 0:
            raise ValueError("got a share of 0 or less, expected every share above 0")
    figure = new_figure(7.5, 1.3 + 0.36 * len(shapes))
    said = []
    for axes, way in zip(_side_by_side(figure, panels), panels, strict=True):
        measured, allowed = panels[way]
        places = np.arange(len(shapes))
        axes.barh(places, measured, color=PALE, edgecolor=BLUE, label="measured")
        strokes = dict(color=INK, marker="|", markersize=17, markeredgewidth=3, linestyle="none")
        axes.plot(allowed, places, label="what counting allows", **strokes)
        for place, share in zip(places, measured, strict=True):
            axes.text(0.02, place, f"{share:.2f}", va="center", fontsize=10)
        axes.set(title=way, xlabel="share of the floor's speed (1 = all)", xlim=(0, 1.05))
        axes.set_yticks(places, shapes)
        axes.set_ylim(len(shapes) - 0.5, -0.5)
        ratio = [share / top for share, top in zip(measured, allowed, strict=True)]
        said.append(f"the {way} reaches {100 * min(ratio):.0f} to {100 * max(ratio):.0f} %")
    figure.axes[0].set_ylabel("heads × length (tokens)")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure, f"Of what counting allows, {', '.join(said)}."


@drawing
def memory(panels: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Largest extra memory of a call, in sizes of its own result: 1 is the result and nothing else.

    panels   direction -> name -> that many times the result
    Errors: ValueError for no panels or panels of different names.
    """
    if not panels or len({tuple(sizes) for sizes in panels.values()}) != 1:
        raise ValueError("got no panels or unlike ones, expected the same names in each")
    names = list(next(iter(panels.values())))
    figure = new_figure(7.5, 1.0 + 0.4 * len(names))
    for axes, (way, sizes) in zip(_side_by_side(figure, panels), panels.items(), strict=True):
        axes.barh(names, sizes.values(), color=PALE, edgecolor=BLUE)
        axes.axvline(1, color=INK, linestyle="--")
        for place, size in enumerate(sizes.values()):
            axes.text(size, place, f" {size:.1f}", va="center", fontsize=10)
        axes.set(title=way, xlabel="extra memory (times the result)")
        axes.set_xlim(0, 1.15 * max(sizes.values()))
        axes.set_ylim(len(names) - 0.5, -0.5)
    figure.axes[0].set_ylabel("method (name)")
    said = "; ".join(
        f"{way}: " + ", ".join(f"{name} {size:.1f}" for name, size in sizes.items())
        for way, sizes in panels.items()
    )
    return figure, f"Dashed: the result alone. Times the result, {said}."


@drawing
def segment_clock(steps: int, segments: int) -> Drawing:
    """One head as a timetable: one program for all its chunks, and a program for each segment.

    steps   chunks of the text; segments: equal parts, walked twice, with one short step to join
    Errors: ValueError unless there are at least two segments, and they divide the steps.
    """
    if segments < 2 or steps % segments:
        raise ValueError(f"got {steps} steps in {segments} segments, expected 2 or more that fit")
    part = steps // segments
    figure = new_figure(7.5, 1.6 + 0.17 * segments)
    axes = figure.subplots()
    programs = np.arange(1, segments + 1)
    axes.barh([-1], [steps], color=PALE, edgecolor=BLUE)
    # the last segment has no successor: nobody needs what it adds
    axes.barh(programs[:-1], part, color="white", edgecolor=ORANGE, hatch="////", label="sum")
    axes.bar(part + 0.5, segments, width=2, bottom=0.5, color=INK, label="join")
    axes.barh(programs, part, left=part + 1, color=PALE, edgecolor=BLUE, label="scan")
    axes.text(steps / 2, -1, "one program walks over the whole head", ha="center", va="center")
    axes.set_yticks([-1, 1, segments], ["alone", "1", f"{segments}"])
    axes.set(ylim=(segments + 0.8, -1.9), ylabel="program (number)")
    axes.set(xlabel="time (steps of one chunk)")
    axes.legend(loc="center right", title="a program for each segment")
    return figure, (
        f"One program needs {steps:,} steps, one after another. {segments} programs need "
        f"{part} for the sums, one to join them, {part} for the scan: {2 * part + 1}, though "
        "together they do more work."
    )


@drawing
def filled(programs: Mapping[int, int], multiprocessors: int) -> Drawing:
    """Which multiprocessors have a program: one for each head, and one for each segment.

    programs   heads -> programs with segments
    Errors: ValueError for no heads, or programs for which no multiprocessor is left.
    """
    _check_programs(programs, multiprocessors)
    figure = new_figure(7.5, 4.6)
    panels = figure.subplots(2, len(programs), squeeze=False)
    for column, (heads, cut) in zip(panels.T, programs.items(), strict=True):
        for axes, busy in zip(column, (heads, cut), strict=True):
            _processors(axes, multiprocessors)(busy)
        column[0].set_title(f"{heads} heads: {heads} busy")
        column[1].set_title(f"in segments: {cut} busy")
    said = "; ".join(
        f"{heads} heads fill {_percent(heads, multiprocessors)}, in segments "
        f"{_percent(cut, multiprocessors)}"
        for heads, cut in programs.items()
    )
    return figure, f"Filled squares: busy multiprocessors, of {multiprocessors}. {said}."


@drawing
def filled_mover(
    programs: Mapping[int, int], multiprocessors: int
) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: the same for one number of heads, and the function that moves to another.

    Errors: ValueError for no heads, or programs for which no multiprocessor is left.
    """
    _check_programs(programs, multiprocessors)
    figure = new_figure(5.4, 3.0)
    left, right = figure.subplots(1, 2)
    left.set_title("a program for each head")
    right.set_title("for each segment")
    fill = [_processors(axes, multiprocessors) for axes in (left, right)]

    def move(heads: float) -> str:
        busy = int(heads), programs[int(heads)]
        for show, number in zip(fill, busy, strict=True):
            show(number)
        one, cut = (_percent(number, multiprocessors) for number in busy)
        return f"{heads:g} heads: {one} of the GPU is busy; cut into segments, {cut}."

    return figure, move


def _processors(axes: Axes, multiprocessors: int) -> Callable[[int], None]:
    """Squares, one for each multiprocessor, and the function that fills the first of them."""
    rows = math.ceil(multiprocessors / PER_ROW)
    axes.set_axis_off()
    squares = axes.pcolormesh(
        np.zeros((rows, PER_ROW)), cmap=ListedColormap(["white", BLUE]), vmin=0, vmax=1,
        edgecolors="#777777", linewidth=0.5,
    )  # fmt: skip
    axes.set(aspect="equal", ylim=(rows + 0.1, -0.1), xlim=(-0.1, PER_ROW + 0.1))

    def fill(busy: int) -> None:
        place = np.arange(rows * PER_ROW)
        state = np.ma.masked_where(place >= multiprocessors, (place < busy).astype(float))
        squares.set_array(state.reshape(rows, PER_ROW))

    fill(0)
    return fill


def _side_by_side(figure: Figure, panels: Mapping) -> np.ndarray:
    return figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]


def _at_the_end(way: str, curves: Mapping[str, Curve], floor: Curve) -> str:
    """What each curve says at the floor's last length; curves that end before are left out."""
    last = floor[0][-1]
    ends = {name: ms[-1] for name, (lengths, ms) in (curves | {"floor": floor}).items()
            if lengths[-1] == last}  # fmt: skip
    return f"{way} " + ", ".join(f"{name} {ms:.3g}" for name, ms in ends.items())


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _check_panels(panels: Mapping, floors: Mapping) -> None:
    if not panels or any(way not in floors for way in panels):
        raise ValueError(f"got panels {list(panels)}, floors {list(floors)}; expected one for each")
    if not all(1 <= len(curves) <= len(MANY_LINES) for curves in panels.values()):
        raise ValueError(f"expected 1 to {len(MANY_LINES)} curves in each panel")


def _check_programs(programs: Mapping[int, int], multiprocessors: int) -> None:
    most = max((max(pair) for pair in programs.items()), default=0)
    if not 1 <= most <= multiprocessors:
        raise ValueError(
            f"got up to {most} programs for {multiprocessors} multiprocessors; expected at least "
            "one, and one multiprocessor for each"
        )
