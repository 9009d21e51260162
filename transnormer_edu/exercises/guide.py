"""The tables of docs/teacher_guide.md: what each lesson takes, plans for a term, what checks catch.

`python -m transnormer_edu.front_page` writes them there, with those of the README. Reading minutes
and running seconds are those that stand at the head of each lesson, exercise minutes and points
those of the cards.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import nbformat

from transnormer_edu.course import choose
from transnormer_edu.exercises.catalog import cards, lessons, of_lesson
from transnormer_edu.exercises.proof import Row
from transnormer_edu.notebook_pages import minutes_to_read

RUNS_IN = re.compile(r"\*\*Runs in\*\* about (\d+) s")
NUMBERS = ("--:",) * 4
# The last lesson of each week.
PLANS = {4: (3, 6, 10, 15), 8: (1, 3, 5, 7, 9, 11, 13, 15)}
EASY = 2  # the highest level that all do in a short term


def parts(root: Path) -> dict[str, str]:
    """Name of a place in the guide -> the table that stands there."""
    plans = {f"{weeks} weeks": _plan(root, weeks) for weeks in PLANS}
    return {"what each takes": _takes(root), **plans, "kill table": _kills()}


def _takes(root: Path) -> str:
    head = ("lesson", "read", "run", f"exercises of level 1 and {EASY}", "all exercises", "points")
    rows = [
        (f"[{path.stem[:2]}](../notebooks/{path.name})", f"{read} min", f"{run} s",
         f"{_minutes([path], EASY)} min", f"{_minutes([path])} min", _points([path]))
        for path in choose(root / "notebooks", None)
        for read, run in [_measured(path)]
    ]  # fmt: skip
    return _table(head, ("---", "--:", *NUMBERS), rows)


def _plan(root: Path, weeks: int) -> str:
    """In a short term the exercises of the highest level are left to who wants them."""
    level = EASY if weeks == min(PLANS) else 3
    head = ("week", "lessons", "read", "exercises", "points")
    rows = []
    for week, paths in _weeks(choose(root / "notebooks", None), PLANS[weeks]):
        numbers = ", ".join(path.stem[:2] for path in paths)
        read = sum(_measured(path)[0] for path in paths)
        rows.append(
            (week, numbers, f"{read} min", f"{_minutes(paths, level)} min", _points(paths, level))
        )
    return _table(head, ("---", "---", *NUMBERS[:3]), rows)


def _weeks(paths: Iterable[Path], last: tuple[int, ...]) -> Iterator[tuple[int, list[Path]]]:
    def week(path: Path) -> int:
        return 1 + sum(int(path.stem[:2]) > end for end in last[:-1])

    return ((number, list(group)) for number, group in groupby(paths, week))


def _kills() -> str:
    """What `exercises prove` prints, by exercise; the tests repeat the proof with every change."""
    head = ("exercise", "", "mistakes", "right answers", "")
    rows = [
        (exercise.number, exercise.title, len(exercise.mistakes), len(exercise.answers),
         Row.when_right)
        for lesson in lessons()
        for exercise in of_lesson(lesson)
    ]  # fmt: skip
    total = ("all", f"{len(rows)} exercises", sum(row[2] for row in rows),
             sum(row[3] for row in rows), "")  # fmt: skip
    return _table(head, ("---", "---", "--:", "--:", "---"), [*rows, total])


def _table(head: Iterable, lines: Iterable[str], rows: Iterable[Iterable]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, lines, *rows))


def _measured(path: Path) -> tuple[int, int]:
    """(minutes to read, seconds to run) of a lesson."""
    notebook = nbformat.read(path, as_version=4)
    run = RUNS_IN.search(notebook.cells[0].source)
    return minutes_to_read(notebook) or 0, int(run[1]) if run else 0


def _cards(paths: Iterable[Path], level: int) -> list:
    there = [path.stem[:2] for path in paths if path.stem[:2] in lessons()]
    return [card for lesson in there for card in cards(lesson).values() if card.level <= level]


def _minutes(paths: Iterable[Path], level: int = 3) -> int:
    return sum(card.minutes for card in _cards(paths, level))


def _points(paths: Iterable[Path], level: int = 3) -> int:
    return sum(card.worth for card in _cards(paths, level))
