"""What the checks draw: reproducible, different for another seed, quick, and never an identity."""

import time

import pytest
import torch

from transnormer_edu.exercises.cases import in_all_shapes, operands
from transnormer_edu.exercises.catalog import every
from transnormer_edu.exercises.draw import Draw, scattered
from transnormer_edu.exercises.judge import judge
from transnormer_edu.exercises.kernel import has_triton
from transnormer_edu.exercises.observe import identical
from transnormer_edu.exercises.worker import warm_up

NAMES = ("b", "h", "n", "dk", "dv")
each = pytest.mark.parametrize("exercise", every(), ids=lambda e: e.number)


@each
def test_the_same_seed_draws_the_same(exercise):
    first, again = (list(exercise.cases(Draw(3))) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.what == other.what
        numbers = (pair for pair in zip(one.inputs.values(), other.inputs.values(), strict=True))
        assert all(identical(a, b) for a, b in numbers if not callable(a))


@each
def test_a_check_takes_less_than_two_seconds(exercise):
    if exercise.launch and not has_triton():
        pytest.skip("it needs Triton")
    answer = next(iter(exercise.answers.values()))
    warm_up(exercise.number)  # as in the process that checks
    started = time.process_time()
    assert judge(exercise, answer) is None
    assert time.process_time() - started < 2


def test_sizes_are_pairwise_different():
    drawn = [Draw(seed).sizes(*NAMES) for seed in range(50)]
    assert all(len(set(sizes.values())) == 5 and list(sizes) == list(NAMES) for sizes in drawn)
    assert len({tuple(sizes.values()) for sizes in drawn}) > 30


def test_all_shapes_are_there():
    cases = list(in_all_shapes(Draw(0), lambda draw, sizes: operands(draw, **sizes), *NAMES))
    shapes = [case.inputs["q"].shape for case in cases]
    assert {1} <= {shape[0] for shape in shapes}
    assert any(shape[1] == 1 < shape[2] for shape in shapes)
    assert any(shape[2] == 1 < shape[1] for shape in shapes)
    assert shapes[0] == shapes[1] and not identical(cases[0].inputs["q"], cases[1].inputs["q"])
    assert any(not case.inputs["q"].is_contiguous() for case in cases)
    assert {case.inputs["q"].dtype for case in cases} == {torch.float64, torch.float32}


def test_scattered_numbers_are_the_same():
    x = Draw(0).normal(2, 3, 4)
    assert identical(scattered(x), x)
    with pytest.raises(RuntimeError, match="view"):
        scattered(x).view(6, 4)
