"""A seed per student: other sizes and numbers, and checks that are as good as for everybody."""

from dataclasses import replace

import pytest
import torch

from transnormer_edu.exercises import STUDENT, VARIANTS, Wrong, check, seed_of
from transnormer_edu.exercises.catalog import every
from transnormer_edu.exercises.draw import Draw
from transnormer_edu.exercises.judge import judge
from transnormer_edu.exercises.observe import copy
from transnormer_edu.exercises.proof import SEEDS, prove_one

SEEDS_OF_STUDENTS = range(1, VARIANTS + 1)
each = pytest.mark.parametrize("exercise", every(), ids=lambda e: e.number)


def written(value) -> str:
    """An input, number by number."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(written, value))})"
    return "a function" if callable(value) else repr(value)


def numbers_of(exercise, seed) -> dict:
    """What is asked, and what is right, for one seed."""
    known = {}
    for case in exercise.cases(Draw(seed)):
        inputs = [copy(value) for value in case.inputs.values()]
        known[written(list(case.inputs.values()))] = exercise.reference(*inputs)
    return known


@each
def test_copied_numbers_fail_for_another_seed(exercise):
    everybodys = numbers_of(exercise, 0)
    for seed in SEEDS_OF_STUDENTS:
        asked = [written(list(case.inputs.values())) for case in exercise.cases(Draw(seed))]
        assert not set(asked) <= set(everybodys), f"nothing is new for seed {seed}"
    exercise = replace(exercise, launch=None)  # of a kernel too the numbers are what is copied
    copied = lambda *inputs: copy(everybodys[written(list(inputs))])  # noqa: E731
    assert "KeyError" not in (judge(exercise, copied, 0) or "")
    assert "KeyError" in judge(exercise, copied, 1)


def test_a_name_is_a_seed():
    assert seed_of("") == 0
    assert seed_of("ada") == seed_of("ada") != seed_of("grace")
    seeds = {seed_of(f"student {i}") for i in range(200)}
    assert seeds == set(SEEDS_OF_STUDENTS)


def test_whose_numbers_they_are_stands_in_the_environment(monkeypatch):
    def told(**seed) -> str:
        with pytest.raises(Wrong) as wrong:
            check("4.4", lambda q, k, v, rate, state: (2 * v, state), **seed)
        return str(wrong.value)

    everybody = told()
    monkeypatch.setenv(STUDENT, "ada")
    assert told() == told(seed=seed_of("ada")) != everybody


@pytest.mark.slow
@each
def test_every_student_is_judged_alike(exercise):
    """All mistakes named, all answers passed, for every seed that a student can have."""
    assert prove_one(exercise, set(SEEDS_OF_STUDENTS) - set(SEEDS)).faults == ()
