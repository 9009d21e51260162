"""The sentence goes where a reader finds it: below the figure, in its alt text, in the page."""

import base64
import html
import io
import re

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from transnormer_edu.notebook_pages import write_page
from transnormer_edu.plots import page, show, slider
from transnormer_edu.plots.page import png_of
from transnormer_edu.plots.style import new_figure
from transnormer_edu.plots.training import run_mover, schedule

SENTENCE = 'The rate "rises" & falls.'


@pytest.fixture
def shown(monkeypatch):
    """What would reach a notebook, as (data, metadata)."""
    outputs = []

    def keep(data, metadata=None, raw=False):
        assert raw
        outputs.append((data, metadata or {}))

    monkeypatch.setattr(page, "display", keep)
    return outputs


def test_picture_alt_and_sentence(shown):
    show(schedule([1.0, 2.0], 1)[0], SENTENCE)
    (picture, metadata), (below, _) = shown
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG")
    assert metadata == {"image/png": {"alt": SENTENCE}}
    assert below["text/plain"] == SENTENCE
    assert SENTENCE in below["text/markdown"]


def test_a_token_that_looks_like_html_is_seen(shown):
    sentence = "After <s> and </s> the loss is < 2."
    show(schedule([1.0, 2.0], 1)[0], sentence)
    (_, metadata), (below, _) = shown
    assert metadata["image/png"]["alt"] == sentence
    assert below["text/markdown"] == "*Figure.* After &lt;s> and &lt;/s> the loss is < 2."


def test_the_exported_page_keeps_the_alt_text(shown, tmp_path):
    show(schedule([1.0, 2.0], 1)[0], SENTENCE)
    outputs = [new_output("display_data", data=d, metadata=m) for d, m in shown]
    cell = new_code_cell("show(...)", outputs=outputs, execution_count=1)
    written = write_page(nbformat.from_dict(new_notebook(cells=[cell])), "x", tmp_path, tmp_path)
    (alt,) = re.findall(r'alt=("[^"]*"|\'[^\']*\')', written.read_text())
    assert html.unescape(alt[1:-1]) == SENTENCE


def test_no_figure_without_words(shown):
    with pytest.raises(ValueError, match="without a sentence"):
        show(new_figure(), "  ")
    assert not shown


def test_the_same_figure_is_the_same_bytes():
    one, two = (png_of(schedule([1.0, 2.0], 1)[0]) for _ in "ab")
    assert one == two


def test_the_readers_own_style_does_not_reach_the_figures():
    import matplotlib

    plain = png_of(schedule([1.0, 2.0], 1)[0])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert png_of(schedule([1.0, 2.0], 1)[0]) == plain


def test_a_slider_moves_the_picture_and_its_words():
    figure, move = run_mover({0.1: [7.0, 5.0], 0.3: [7.0, 9.0]}, start=7.6)
    box = slider(figure, move, (0.1, 0.3), "learning rate", start=0.1)
    handle, picture, words = box.children
    before = picture.value
    handle.value = 0.3
    assert picture.value != before
    assert np.array_equal(pixels(picture.value), pixels(png_of(figure)))
    assert "0.3" in words.value
    handle.value = 0.1
    assert "0.1" in words.value


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


CHANGES = {
    "nothing of the axes": lambda axes, x: None,
    "a limit": lambda axes, x: axes.set_xlim(0, x),
    "limits that follow the curve": lambda axes, x: (axes.relim(), axes.autoscale_view()),
    "a label": lambda axes, x: axes.set_ylabel(f"height {x}"),
    "ticks": lambda axes, x: axes.set_yticks([x, 2 * x], ["one", "two"]),
    "a scale": lambda axes, x: axes.set_xscale("log"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_slider_shows_what_a_page_would_show(change):
    """Axes are drawn from memory until they change: no pixel may tell."""
    figure = new_figure()
    left, right = figure.subplots(1, 2)
    left.imshow(np.arange(6).reshape(2, 3))
    (curve,) = right.plot([1, 2], [1, 2], marker="o")
    figure.suptitle("moving")

    def move(x: float) -> str:
        curve.set_data([1, 2, 3], [x, 1, 2 * x])
        right.set_title(f"x is {x}")
        CHANGES[change](right, x)
        return str(x)

    handle, picture, _ = slider(figure, move, (1, 3, 7), "x").children
    for position in (1, 7, 3, 7):
        handle.value = position
        now = picture.value
        assert np.array_equal(pixels(now), pixels(png_of(figure))), position


def test_a_slider_says_in_words_what_a_page_cannot_show(tmp_path):
    figure, move = run_mover({0.1: [7.0], 0.3: [7.0]}, start=7.6)
    data = slider(figure, move, (0.1, 0.3), "learning rate")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    outputs = [new_output("execute_result", data=data, execution_count=1)]
    cell = new_code_cell("slider(...)", outputs=outputs, execution_count=1)
    written = write_page(nbformat.from_dict(new_notebook(cells=[cell])), "x", tmp_path, tmp_path)
    assert "make lab" in written.read_text()


def test_redrawing_does_not_lay_out_anew():
    """The layout of the first drawing stays: that is half of the time."""
    figure, move = run_mover({0.1: [7.0], 0.3: [7.0]}, start=7.6)
    box = slider(figure, move, (0.1, 0.3), "learning rate", start=0.1)
    engine = figure.get_layout_engine()
    assert type(engine).__name__ == "PlaceHolderLayoutEngine"
    box.children[0].value = 0.3
    assert figure.get_layout_engine() is engine


@pytest.mark.parametrize("positions, start", [((), None), ((0.1,), None), ((0.1, 0.3), 0.2)])
def test_a_slider_that_cannot_be_moved(positions, start):
    with pytest.raises(ValueError, match="at least two positions"):
        slider(new_figure(), str, positions, "x", start)
