"""All exercises, by number. A lesson's file holds the lists EXERCISES and QUESTIONS."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import transnormer_edu.exercises
from transnormer_edu.exercises.exercise import Card, Exercise, Question


@cache
def lessons() -> tuple[str, ...]:
    """The lessons that have exercises: ("01", "02", ...)."""
    modules = iter_modules(transnormer_edu.exercises.__path__)
    return tuple(sorted(m.name[-2:] for m in modules if m.name.startswith("lesson_")))


@cache
def of_lesson(lesson: str) -> tuple[Exercise, ...]:
    return tuple(import_module(f"transnormer_edu.exercises.lesson_{lesson}").EXERCISES)


def questions(lesson: str) -> tuple[Question, ...]:
    """The open questions of a lesson."""
    return tuple(import_module(f"transnormer_edu.exercises.lesson_{lesson}").QUESTIONS)


def cards(lesson: str) -> dict[str, Card]:
    """Exercises and open questions of a lesson, by number."""
    return {card.number: card for card in (*of_lesson(lesson), *questions(lesson))}


def every() -> list[Exercise]:
    return [exercise for lesson in lessons() for exercise in of_lesson(lesson)]


def find(number: str) -> Exercise:
    """The exercise with this number, "4.2"; ValueError names those that there are."""
    lesson = str(number).split(".")[0].zfill(2)
    there = of_lesson(lesson) if lesson in lessons() else ()
    for exercise in there:
        if exercise.number == number:
            return exercise
    known = ", ".join(exercise.number for exercise in there or every())
    raise ValueError(f"there is no exercise {number!r}; there are {known}")
