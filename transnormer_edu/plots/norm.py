"""What a norm does: to points of a plane, to a gradient, and to heads that share it."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from transnormer_edu.norm import srmsnorm
from transnormer_edu.plots.style import (
    BLUE,
    GREEN,
    INK,
    LINES,
    ORANGE,
    Drawing,
    drawing,
    need_equal_lengths,
    new_figure,
)

HATCHES = ("", "///", "...")


@drawing
def in_the_plane(points: Float[Tensor, "n 2"], normed: Mapping[str, Tensor]) -> Drawing:
    """Points of a plane, hollow, and where each norm puts them, filled; one panel a norm.

    normed   name -> the points (n, 2) after that norm
    Errors: ValueError for no norm, or points of another shape.
    """
    wrong = [name for name, moved in normed.items() if moved.shape != points.shape]
    if not normed or wrong:
        raise ValueError(
            f"got {wrong or 'no norm'}; expected norms of {tuple(points.shape)} points"
        )
    figure = new_figure(2.6 * len(normed), 3.4)
    panels = figure.subplots(1, len(normed), sharey=True, squeeze=False)[0]
    reach = 1.1 * float(max(part.abs().max() for part in (points, *normed.values())))
    for axes, (name, moved) in zip(panels, normed.items(), strict=True):
        axes.plot(*points.T, "o", color="#888888", fillstyle="none", label="before")
        axes.plot(*moved.T, "D", color=BLUE, label="after")
        for one, other in zip(points, moved, strict=True):
            axes.plot(*torch.stack([one, other]).T, color="#BBBBBB", linewidth=0.8, zorder=1)
        axes.set(title=name, xlabel="first feature (1)", aspect="equal")
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    panels[0].set_ylabel("second feature (1)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    lengths = {name: moved.norm(dim=1) for name, moved in normed.items()}
    said = "; ".join(f"{name} {low:.2f} to {high:.2f}" for name, low, high in _ends(lengths))
    return figure, f"Lengths after the norm: {said}."


@drawing
def gradients(x: Float[Tensor, "2"], degrees: Sequence[float]) -> Drawing:
    """dy at the normed point y, and dx, what SRMSNorm lets through to x; one panel a direction.

    degrees   angle between y and dy
    Errors: ValueError for no direction, or more than three.
    """
    if not 1 <= len(degrees) <= 3:
        raise ValueError(f"got {len(degrees)} directions, expected 1 to 3")
    figure = new_figure(2.7 * len(degrees), 3.7)
    panels = figure.subplots(1, len(degrees), sharey=True, squeeze=False)[0]
    said = []
    for axes, angle in zip(panels, degrees, strict=True):
        through = _draw_gradients(axes, x)(angle)
        axes.set_title(f"dy at {angle:g}°")
        said.append(f"{100 * through:.0f} % at {angle:g}°")
    panels[0].set_ylabel("second feature (1)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, f"Of a gradient dy at this angle to y, SRMSNorm passes on: {', '.join(said)}."


@drawing
def gradient_mover(x: Float[Tensor, "2"]) -> tuple[Figure, Callable[[float], str]]:
    """For `slider`: one such panel, and the function that turns dy to an angle in degrees."""
    figure = new_figure(4.6, 4.6)
    axes = figure.subplots()
    turn = _draw_gradients(axes, x)
    axes.set_ylabel("second feature (1)")
    axes.legend(loc="lower left")

    def move(angle: float) -> str:
        return f"dy at {angle:g}° to y: {100 * turn(angle):.0f} % of it is passed on."

    return figure, move


@drawing
def head_sizes(sizes: Mapping[str, Sequence[float]]) -> Drawing:
    """Root mean square of each head's output after differently shared norms, as bars.

    Errors: ValueError for no norm, more than three, or heads of unequal number.
    """
    if not 1 <= len(sizes) <= len(HATCHES):
        raise ValueError(f"got {len(sizes)} norms, expected 1 to {len(HATCHES)}")
    need_equal_lengths(**sizes)
    figure = new_figure(height=3.3)
    axes = figure.subplots()
    width = 0.8 / len(sizes)
    colors = (BLUE, ORANGE, GREEN)
    for i, (name, values) in enumerate(sizes.items()):
        at = [head + (i - (len(sizes) - 1) / 2) * width for head in range(1, len(values) + 1)]
        axes.bar(at, values, width, color=colors[i], edgecolor=INK, hatch=HATCHES[i], label=name)
    axes.set_xticks(range(1, len(values) + 1))
    axes.set(xlabel="head (number)", ylabel="root mean square (1)")
    axes.legend(loc="upper left")
    said = "; ".join(f"{name} {max(v) / min(v):.2g}" for name, v in sizes.items())
    return figure, f"The largest head's size, as a multiple of the smallest: {said}."


def _draw_gradients(axes: Axes, x: Float[Tensor, "2"]) -> Callable[[float], float]:
    """Draws x, y and their circle; gives the function that turns dy: what share gets through."""
    y = srmsnorm(x)
    rho = float(y.norm() / x.norm())
    circle = [i * math.pi / 100 for i in range(201)]
    radius = math.sqrt(2)
    axes.plot([radius * math.cos(a) for a in circle], [radius * math.sin(a) for a in circle],
              color="#888888", linewidth=1)  # fmt: skip
    axes.plot(*zip((0, 0), x.tolist(), strict=True), color="#888888", linewidth=1)
    axes.plot(*x.tolist(), "o", color=INK)
    axes.annotate("x", x.tolist(), (4, -14), textcoords="offset points")
    axes.annotate("y", y.tolist(), (4, -14), textcoords="offset points")
    dy_line = axes.plot([], [], label="dy", **LINES[0] | {"markevery": [1]})[0]
    dx_line = axes.plot([], [], label="dx / ρ", **LINES[1] | {"markevery": [1]})[0]
    reach = float(x.abs().max()) + 1.3
    axes.set(xlim=(-2, reach), ylim=(-2, reach), aspect="equal", xlabel="first feature (1)")

    def turn(angle: float) -> float:
        direction = math.atan2(y[1], y[0]) + math.radians(angle)
        dy = torch.tensor([math.cos(direction), math.sin(direction)], dtype=x.dtype)
        dx = (dy - y * (y * dy).mean()) * rho
        dy_line.set_data(*zip(y.tolist(), (y + dy).tolist(), strict=True))
        dx_line.set_data(*zip(x.tolist(), (x + dx / rho).tolist(), strict=True))
        return float(dx.norm() / rho)

    return turn


def _ends(lengths: Mapping[str, Tensor]):
    return [(name, float(length.min()), float(length.max())) for name, length in lengths.items()]
