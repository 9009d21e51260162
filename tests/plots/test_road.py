from pathlib import Path

import pytest

from tests.plots.checks import assert_readable
from transnormer_edu.plots.road import ROAD, lessons_here, road, road_table

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_every_lesson_is_a_stop():
    figure, sentence = assert_readable(road([0, 11]))
    assert f"{len(ROAD)} stops" in sentence
    written = {text.get_text() for text in figure.axes[0].texts}
    for lesson in ROAD:
        assert {str(lesson.number), lesson.name, lesson.question} <= written
        assert f"↓ {lesson.leaves_open}" in written


def test_filled_stops_are_those_that_are_there():
    stops = road([0, 11])[0].axes[0].collections
    hollow = [stop.get_facecolor()[0].min() == 1 for stop in stops]
    assert [number for number, is_hollow in enumerate(hollow) if not is_hollow] == [0, 11]


def test_no_words_run_into_each_other():
    figure, _ = road(range(len(ROAD)))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if len(text.get_text()) > 2]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_the_table_links_to_what_is_there(tmp_path):
    (tmp_path / "04_decay.ipynb").touch()
    (tmp_path / "notes.ipynb").touch()
    assert lessons_here(tmp_path) == {4: "04_decay.ipynb"}
    table = road_table(tmp_path)
    assert "[04 decay](04_decay.ipynb)" in table
    assert "| 05 LRPE (to come) |" in table
    assert table.count("](") == 1


def test_every_notebook_is_on_the_road():
    assert set(lessons_here(NOTEBOOKS)) <= {lesson.number for lesson in ROAD}


def test_a_lesson_that_is_not_on_the_road():
    with pytest.raises(ValueError, match="no lesson 16"):
        road([16])
