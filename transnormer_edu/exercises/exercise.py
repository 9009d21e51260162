"""What an exercise is: its card, the right function, and the mistakes that people make.

A check runs a student's function on `cases` and compares it with `reference`. The same table of
`mistakes` names what went wrong, and proves in the tests that no known mistake passes.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transnormer_edu.exercises.draw import Draw


@dataclass(frozen=True)
class Case:
    """One call: the arguments in their order, and in words what is special about them.

    no_map_of  refuse every tensor with two axes of this length or more; 0: refuse none
    """

    what: str
    inputs: Mapping[str, Any]
    no_map_of: int = 0


@dataclass(frozen=True, kw_only=True)
class Card:
    """What stands on an exercise's label.

    number   "4.2": lesson 04, second exercise
    level    1 (fill a line), 2 (write a function), 3 (put several ideas together)
    worth    points
    minutes  for somebody who has just read the lesson
    needs    the section that it builds on, or other exercises
    """

    number: str
    title: str
    level: int
    worth: int
    minutes: int
    needs: str

    def card(self) -> str:
        """The line below the heading."""
        level = "●" * self.level + "○" * (3 - self.level)
        points = "1 point" if self.worth == 1 else f"{self.worth} points"
        return f"level {level} · {points} · about {self.minutes} min · needs {self.needs}"


class Question(Card):
    """An open question: answered in words, judged by a person with the rubric."""


@dataclass(frozen=True, kw_only=True)
class Exercise(Card):
    """A function to write, and what proves it right.

    function   the name that the stub bears
    returns    what comes back and the names of its axes, {"o": "text head token value"}
    reference  the right function, as a rule the package's own
    cases      draws the inputs: pairwise different sizes, no identity values
    answers    at least two right ones, each of another structure
    mistakes   at least five wrong ones; each name goes on from "It looks as if ..."
    gradients  whether autograd must come through with the right gradients
    launch     for a kernel: launch(kernel, *inputs) runs it and returns what it has written
    finished   the package's own functions that do just this: an answer may not call them
    """

    function: str
    returns: Mapping[str, str]
    reference: Callable
    cases: Callable[[Draw], Iterable[Case]]
    answers: Mapping[str, Callable] = field(repr=False)
    mistakes: Mapping[str, Callable] = field(repr=False)
    gradients: bool = True
    launch: Callable | None = None
    finished: Set[str] = frozenset()

    def called(self, answer: Callable) -> Callable:
        """An answer as a function of the inputs."""
        return partial(self.launch, answer) if self.launch else answer

    def to_return(self) -> str:
        """What the function has to return, in words; the untouched stub raises with this."""
        parts = [f"{name} [{axes}]" if axes else name for name, axes in self.returns.items()]
        return "return " + ", ".join(parts)
