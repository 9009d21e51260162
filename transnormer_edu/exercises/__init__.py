"""Exercises, and checks that a wrong answer does not pass.

    from transnormer_edu.exercises import check

    check("4.2", my_function)      silent but for one line when right; otherwise an AssertionError

In the terminal: `transnormer-edu exercises check 04`. Whose numbers: the environment variable
TRANSNORMER_STUDENT, a name, chooses one of VARIANTS draws of all sizes and numbers, so that those
that somebody else copied from a message are wrong. How it works: `exercise` (what one is),
`judge` (how it is judged), `worker` (where), `lesson_NN` (the exercises and their known mistakes),
`notebooks` and `terminal` (the files), `proof` (that no known mistake passes), `grading` and
`classroom` (whole notebooks of whole classes).
"""

import os
import zlib
from collections.abc import Callable

__all__ = ["Wrong", "check", "seed_of"]
_workers = []  # one at a time, kept warm
STILL_TO_WRITE = "this is still to be written"
STUDENT = "TRANSNORMER_STUDENT"  # the environment variable
VARIANTS = 16  # few enough to prove the checks for each (tests/exercises/test_variants.py)


class Wrong(AssertionError):
    """The answer is not right; the message says where, and why if that is known."""


def seed_of(student: str) -> int:
    """A student's seed: 1 to VARIANTS, the same on every machine; 0 where nobody is named."""
    return zlib.crc32(student.encode()) % VARIANTS + 1 if student else 0


def check(number: str | float, function: Callable, *, seed: int | None = None) -> None:
    """Check `function` as the answer to exercise `number`, "4.2".

    Says so when it is right; raises Wrong with the first wrong place, and with the mistake where
    it is a known one. It runs in a process of its own and for a limited time, on clones of inputs
    that `seed` draws (None: the student's own seed). Raises ValueError for a number that no
    exercise has.
    """
    seed = seed_of(os.environ.get(STUDENT, "")) if seed is None else seed
    number = str(number)  # 4.2 is as clear as "4.2"
    print(f"{number} is right: {ask(number, by_value(number, function), seed)}")


def by_value(number: str, function: Callable) -> bytes:
    """The function with all that it uses, for the process that checks it; Wrong if it cannot go."""
    from transnormer_edu.exercises.kernel import by_value

    if not callable(function):
        raise Wrong(f"{number}: got a {type(function).__name__}, expected your function itself")
    try:
        return by_value(function)
    except Exception as error:
        raise Wrong(
            f"{number}: the function cannot be handed to the process that checks it, because of "
            f"something outside that it uses ({error})"
        ) from None


def ask(
    number: str, pickled: bytes, seed: int, workers: list = _workers, folder: str | None = None
) -> str:
    """The exercise's title where the function is right; Wrong and ValueError as in `check`.

    workers   holds the process that checks, if it is there already; afterwards one that is warm
    folder    where that process looks for helpers of the student's; None: here
    """
    from transnormer_edu.exercises.worker import Stopped, Worker

    if not (workers and workers[0].is_alive()):
        workers[:] = [Worker(number, folder)]
    try:
        verdict, sentence = workers[0].ask(number, pickled, seed)
    except Stopped as reason:
        if not workers[0].is_alive():
            workers[:] = [Worker(number, folder)]  # warm again by the time it is needed
        raise Wrong(f"{number} could not be checked: {reason}") from None
    if verdict == "unknown":
        raise ValueError(sentence)
    if verdict == "wrong":
        # It may have changed what the next check relies on.
        if not workers[0].forks and STILL_TO_WRITE not in sentence:
            workers.pop().stop()
            workers.append(Worker(number, folder))
        raise Wrong(f"{number} is not right yet.\n{sentence}")
    return sentence
