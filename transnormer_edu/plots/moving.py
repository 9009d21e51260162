"""A figure moved by a slider, fast enough to feel direct.

One figure is kept and its artists are changed, instead of a new figure for every position: on two
processor cores that takes less than 0.15 s from the slider to the picture.
"""

import io
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from transnormer_edu.plots.page import png_of
from transnormer_edu.plots.style import drawing

AWAY = (
    "A slider stands here when the lesson runs: make lab. What stands above is complete without it."
)


class Slider(widgets.VBox):
    """A box of widgets that says in words what stands here, where nothing can draw it."""

    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": AWAY}


def slider(
    figure: Figure,
    move: Callable[[float], str],
    positions: Sequence[float],
    label: str,
    start: float | None = None,
) -> Slider:
    """`figure` under a slider over `positions`: as the last line of a cell, it is shown.

    move     changes the figure's artists to the given position and returns its sentence
    start    the first position; None: the one in the middle

    It is an extra: put the complete static figure before it, for readers without a kernel.
    Errors: ValueError for fewer than two positions or a start that is none of them.
    """
    positions = list(positions)
    start = positions[len(positions) // 2] if start is None else start
    if len(positions) < 2 or start not in positions:
        raise ValueError(
            f"got positions {positions} and start {start}; expected at least two positions, the "
            "start among them"
        )
    handle = widgets.SelectionSlider(
        options=[(f"{position:g}", position) for position in positions],
        value=start,
        description=label,
        style={"description_width": "initial"},
        layout={"width": "32rem"},
    )
    pixels = round(figure.get_figwidth() * figure.dpi)  # unstretched, so that letters stay sharp
    picture = widgets.Image(format="png", layout={"width": f"{pixels}px", "max_width": "100%"})
    words = widgets.Label()

    def redraw(position: float) -> None:
        words.value = move(position)
        picture.value = png_again(canvas)

    words.value, picture.value = move(start), png_of(figure)
    figure.set_layout_engine("none")  # the layout of this first drawing stays: half the time
    canvas = FigureCanvasAgg(figure)  # kept as well: it remembers how long the words are
    handle.observe(lambda change: redraw(change["new"]), names="value")
    return Slider([handle, picture, words])


@drawing
def png_again(canvas: FigureCanvasAgg) -> bytes:
    """The bytes of `png_of` for a figure that is laid out; `savefig` would draw it twice."""
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
