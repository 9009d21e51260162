import pytest

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots import tiles


def test_what_fits_where():
    things, places = {"row": 100, "map": 3e6, "rest": 5e4}, {"near": 2e4, "beside": 1e5, "far": 1e9}
    figure, sentence = assert_readable(tiles.what_fits(things, places))
    assert "In every place: row; only in the largest: map." in sentence
    axes = figure.axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == pytest.approx(list(things.values()))
    assert [line.get_xdata()[0] for line in axes.lines] == list(places.values())
    assert len({line.get_linestyle() for line in axes.lines}) == 3
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named == ["row, 100 bytes", "map, 3 MB", "rest, 50 KB"]
    named = [line.get_label() for line in axes.lines]
    assert named == ["near, 20 KB", "beside, 100 KB", "far, 1 GB"]


@pytest.mark.parametrize(
    "size, words", [(7, "7 bytes"), (999, "999 bytes"), (65536, "65.5 KB"), (80e9, "80 GB")]
)
def test_bytes_in_words(size, words):
    assert tiles.said(size) == words


def test_bytes_in_multiples_of_the_least():
    figure, sentence = assert_readable(tiles.moved({"map": 3e6, "state": 1e5}, least="state"))
    assert "map 30, state 1." in sentence
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [30, 1]
    assert [text.get_text() for text in axes.texts] == ["30 ×  (3 MB)", "1 ×  (100 KB)"]
    assert axes.get_xlim()[1] > 30


def test_no_form_is_above_the_roof():
    forms = {"slow": (20.0, 10.0), "fast": (5000.0, 10.0)}
    drawn = tiles.roofline(3.0, 300.0, forms, {"seen": (20.0, 10.0, 5.0)})
    figure, sentence = assert_readable(drawn)
    assert "bends at 100 operations per byte" in sentence
    assert "Memory is the limit of slow; arithmetic that of fast." in sentence
    assert "seen 0.67." in sentence  # 4 of 2 * 3
    axes = figure.axes[0]
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
    assert points["slow"] == (2, 6)
    assert points["fast"] == (500, 300)
    assert points["measured: seen"] == (2, 4)
    roof = axes.lines[0]
    assert list(roof.get_ydata()) == pytest.approx([0.6, 300, 300])
    assert list(roof.get_xdata()) == pytest.approx([0.2, 100, 2000])
    assert_told_apart_without_colour(axes)


def test_cost_over_block_size():
    drawn = tiles.block_cost([4, 16, 64], {"work": [3.0, 2, 5]}, [4.0, 3, 9], "time (ms)")
    figure, sentence = assert_readable(drawn)
    assert "The fastest measured chunk has 16 rows." in sentence
    axes = figure.axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[3, 2, 5], [4, 3, 9]]
    assert axes.get_ylabel() == "time (ms)"
    assert_told_apart_without_colour(axes)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: tiles.what_fits({}, {"a": 1, "b": 2}),
        lambda: tiles.what_fits({"a": 1}, {"b": 1}),
        lambda: tiles.what_fits({"a": 0}, {"a": 1, "b": 2}),
        lambda: tiles.moved({}, "a"),
        lambda: tiles.moved({"a": 1.0}, "b"),
        lambda: tiles.moved({"a": 0.0}, "a"),
        lambda: tiles.roofline(1.0, 0.0, {"a": (1, 1)}, {}),
        lambda: tiles.roofline(1.0, 1.0, {}, {}),
        lambda: tiles.roofline(1.0, 1.0, {"a": (1, 1)}, {"b": (1, 1, 0)}),
        lambda: tiles.block_cost([1, 2], {}, [1.0, 2.0], "time (s)"),
        lambda: tiles.block_cost([1, 2], {"a": [1.0]}, [1.0, 2.0], "time (s)"),
        lambda: tiles.block_cost([1], {"a": [1.0]}, [0.0], "time (s)"),
    ],
)
def test_broken_input(draw):
    with pytest.raises(ValueError, match="expected"):
        draw()
