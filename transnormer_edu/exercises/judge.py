"""Judge a function: the first thing that is wrong, and which known mistake it is.

    judge(exercise, function)      None when it is right; otherwise a sentence for the student

The reference answers first, then the function, on clones. Every case is run before anything is
said, so that a known mistake is recognised by all that it does.
"""

import math
import traceback
from collections.abc import Callable, Sequence
from types import CodeType

from torch import Tensor

from transnormer_edu.exercises import STILL_TO_WRITE
from transnormer_edu.exercises.compare import (
    close,
    difference,
    gradient_difference,
    same_outcome,
    same_values,
)
from transnormer_edu.exercises.draw import Draw
from transnormer_edu.exercises.exercise import Case, Exercise
from transnormer_edu.exercises.kernel import has_triton
from transnormer_edu.exercises.observe import Outcome, Refused, call, flat, is_float, observe
from transnormer_edu.exercises.untouched import Shared

FLOAT32 = (3e-7, 3e-7)  # what one rounding to float32 leaves, and a little more
SEVEN_DIGITS = 1e-5  # of each number itself, after a few such roundings
AGAIN = "the first inputs once more, after all others"


def judge(
    exercise: Exercise, function: Callable, seed: int = 0, when_done: Callable = lambda: None
) -> str | None:
    """What is wrong with `function`, as a sentence, or None. `when_done`: after its last call."""
    if exercise.launch and not has_triton():
        return "This needs Triton, which there is for Linux alone: check it on a Linux machine."
    cases = list(exercise.cases(Draw(seed)))
    right = observe(exercise.reference, cases, exercise.gradients)
    shared = Shared()
    found = observe(exercise.called(function), cases, exercise.gradients)
    changed = shared.put_back()
    when_done()
    if changed:
        return f"It changes {changed}, which everybody shares: give your own another name."
    names = [case.what for case in cases] + [AGAIN]
    for look in (_value_problem, _gradient_problem):
        for name, got, want in zip(names, found, right, strict=True):
            problem = look(exercise, function, got, want)
            if problem:
                clue = diagnose(exercise, found, cases) or guess(found, right)
                because = "\n" + _sentence(f"It looks as if {clue}") if clue else ""
                return _sentence(f"{name}: {problem}") + because
    return None


def _sentence(text: str) -> str:
    return text if text.endswith("?") else text + "."


def diagnose(exercise: Exercise, found: Sequence[Outcome], cases: Sequence[Case]) -> str | None:
    """The known mistake that does exactly the same on every case."""
    for mistake, wrong in exercise.mistakes.items():
        wrong = exercise.called(wrong)
        values = zip(found, (call(wrong, case) for case in cases), strict=False)  # one at a time
        if all(same_values(ours, theirs) for ours, theirs in values):
            theirs = observe(wrong, cases, exercise.gradients)
            if all(map(same_outcome, found, theirs)):
                return mistake
    return None


def guess(found: Sequence[Outcome], right: Sequence[Outcome]) -> str | None:
    """What unknown mistakes often are: too few digits, or one factor everywhere."""
    pairs = [
        (x, y)
        for got, want in zip(found, right, strict=True)
        for x, y in zip(flat(got.value), flat(want.value), strict=False)
        if is_float(x) and is_float(y)
    ]
    if not pairs or any(x.shape != y.shape for x, y in pairs):
        return None
    if all(close(x, y).all() for x, y in pairs):
        return None
    factor = _factor(*pairs[0])
    if factor and math.isfinite(factor) and all(close(x, factor * y).all() for x, y in pairs):
        return f"everything is {factor:.6g} times what it should be"
    if all(close(x, y, FLOAT32).all() and close(x, y, (SEVEN_DIGITS, 0)).all() for x, y in pairs):
        return (
            "only about 7 digits are right: is a tensor made without dtype=..., in float32, or a "
            "small number added?"
        )
    return None


def _factor(x: Tensor, y: Tensor) -> float:
    place = y.abs().argmax()
    return (x.flatten()[place] / y.flatten()[place]).item()


def _value_problem(
    exercise: Exercise, function: Callable, got: Outcome, want: Outcome
) -> str | None:
    if got.error is not None:
        return _raised(got.error, function)
    if got.changed:
        return f"it changes its input {got.changed[0]}, which belongs to whoever calls it"
    wrong = difference(got.value, want.value, exercise.returns)
    if wrong:
        return wrong
    if got.overwritten:
        return "a later call changes what was returned: it writes into a tensor that it keeps"
    return None


def _gradient_problem(
    exercise: Exercise, function: Callable, got: Outcome, want: Outcome
) -> str | None:
    if got.gradient_error is not None:
        return "with inputs that ask for a gradient, " + _raised(got.gradient_error, function)
    return gradient_difference(got, want)


def _raised(error: BaseException, function: Callable) -> str:
    """The exception, and the line of the student's function in which it came up."""
    if isinstance(error, NotImplementedError):
        return f"{STILL_TO_WRITE}: {error}"
    if isinstance(error, Refused):
        return str(error)
    said = "".join(traceback.format_exception_only(error)).strip()
    code = getattr(getattr(function, "fn", function), "__code__", None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if code is not None and (frame.f_code is code or _rewritten(function, frame.f_code, code)):
            return f"in line {line - code.co_firstlineno + 1} it raised {said}"
    return f"it raised {said}"


def _rewritten(function: Callable, one: CodeType, other: CodeType) -> bool:
    """Whether Triton's interpreter has made `one` of a kernel's code, line by line."""
    same = (one.co_filename, one.co_name) == (other.co_filename, other.co_name)
    return hasattr(function, "fn") and same
