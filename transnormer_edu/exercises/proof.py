"""Prove the checks: every known mistake is caught and named, every right answer passes.

    for row in prove(): print(row)

One row for each exercise. Everything runs in this process, without time limit, for several seeds.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from transnormer_edu.exercises.catalog import lessons, of_lesson
from transnormer_edu.exercises.exercise import Exercise
from transnormer_edu.exercises.judge import judge
from transnormer_edu.exercises.kernel import has_triton
from transnormer_edu.exercises.worker import warm_up

SEEDS = (0, 1)


@dataclass(frozen=True)
class Row:
    """How one exercise's check did. `faults` says in words what it let through, or misnamed."""

    number: str
    title: str
    mistakes: int
    answers: int
    faults: tuple[str, ...]
    when_right: str = "all caught and named"

    def __str__(self) -> str:
        verdict = "; ".join(self.faults) or self.when_right
        return (
            f"{self.number:5} {self.title:44} {self.mistakes:3} mistakes {self.answers:2} answers"
            f"  {verdict}"
        )


def prove(chosen: Iterable[str] | None = None) -> Iterator[Row]:
    """Run all mistakes and right answers of some lessons ("04"; None: of all) through the checks.

    Errors: ValueError for a lesson that has no exercises.
    """
    known = lessons()
    for lesson in known if chosen is None else chosen:
        if lesson not in known:
            raise ValueError(f"lesson {lesson!r} has no exercises; those with: {', '.join(known)}")
        yield from map(prove_one, of_lesson(lesson))


def prove_one(exercise: Exercise, seeds: Iterable[int] = SEEDS) -> Row:
    """One thread: the sizes are tiny. A kernel is interpreted; without Triton it is left out."""
    sizes = len(exercise.mistakes), len(exercise.answers)
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton, as PyTorch may
    if exercise.launch and not has_triton():
        return Row(exercise.number, exercise.title, *sizes, (), "not run: it needs Triton")
    warm_up(exercise.number)  # as in the process that checks
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        faults = tuple(fault for seed in seeds for fault in _faults(exercise, seed))
    finally:
        torch.set_num_threads(threads)
    return Row(exercise.number, exercise.title, *sizes, faults)


def _faults(exercise: Exercise, seed: int) -> Iterator[str]:
    for name, answer in exercise.answers.items():
        wrong = judge(exercise, answer, seed)
        if wrong:
            yield f"the right answer '{name}' fails (seed {seed}): {wrong}"
    for name, mistake in exercise.mistakes.items():
        said = judge(exercise, mistake, seed)
        if said is None:
            yield f"'{name}' passes (seed {seed})"
        elif f"It looks as if {name}." not in said:
            yield f"'{name}' is called something else (seed {seed}): {said}"
    if judge(exercise, untouched(exercise), seed) is None:
        yield f"the untouched stub passes (seed {seed})"


def untouched(exercise: Exercise) -> Callable:
    """What stands in a student's notebook before anything was written."""

    def stub(*inputs):
        raise NotImplementedError(exercise.to_return())

    return stub
