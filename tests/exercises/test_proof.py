"""Every exercise's check: known mistakes are caught and named, right answers pass, a stub fails."""

from dataclasses import replace
from pathlib import Path

import pytest

from transnormer_edu.exercises.catalog import every, find, lessons, questions
from transnormer_edu.exercises.proof import SEEDS, prove, prove_one

ROOT = Path(__file__).parents[2]
# May only get shorter. A new lesson brings its own exercises: do not add to it.
STILL_WITHOUT = set()


@pytest.mark.parametrize("exercise", every(), ids=lambda e: e.number)
def test_the_check_catches_and_names_every_mistake(exercise):
    assert prove_one(exercise).faults == ()


@pytest.mark.parametrize("exercise", every(), ids=lambda e: e.number)
def test_there_is_enough_to_prove(exercise):
    assert len(exercise.mistakes) >= 5
    assert len(exercise.answers) >= 2
    assert 1 <= exercise.level <= 3
    assert exercise.worth >= 1 and exercise.minutes >= 1


@pytest.mark.parametrize("lesson", lessons())
def test_a_lesson_has_three_to_five_exercises_numbered_in_order_and_a_question(lesson):
    own = [exercise for exercise in every() if exercise.number.split(".")[0].zfill(2) == lesson]
    assert 3 <= len(own) <= 5
    numbers = [card.number for card in (*own, *questions(lesson))]
    assert numbers == [f"{int(lesson)}.{i + 1}" for i in range(len(numbers))]
    assert len(questions(lesson)) >= 1


def test_lessons_have_exercises():
    there = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")} - {"00"}
    assert there - set(lessons()) <= STILL_WITHOUT, "a lesson without exercises"
    assert not STILL_WITHOUT & set(lessons()), "these have exercises now: shorten the list"


def test_the_proof_can_fail():
    exercise = find("4.3")
    right = exercise.answers["formula (4)"]
    silent = replace(exercise, mistakes={"nothing is wrong": right})
    assert len(prove_one(silent).faults) == len(SEEDS)
    wrong = exercise.mistakes["the 1e-5 is missing"]
    assert len(prove_one(replace(exercise, answers={"a wrong one": wrong})).faults) == len(SEEDS)
    swapped = dict(zip(exercise.mistakes, reversed(exercise.mistakes.values()), strict=True))
    unnamed = replace(exercise, mistakes=swapped)
    assert prove_one(unnamed).faults == ()  # the table is what names them
    twice = {"one name": wrong, "another name of the same": wrong}
    assert "called something else" in prove_one(replace(exercise, mistakes=twice)).faults[0]


def test_a_lesson_that_is_not_there():
    with pytest.raises(ValueError, match="'99' has no exercises"):
        next(prove(["99"]))
