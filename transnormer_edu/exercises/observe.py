"""Call a function as a check does, and keep everything that it did."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

from transnormer_edu.exercises.exercise import Case


@dataclass
class Outcome:
    """One call: what it returned or raised, which inputs it changed, what gradients came back."""

    value: Any = None
    error: BaseException | None = None
    changed: tuple[str, ...] = ()
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    gradient_error: BaseException | None = None
    overwritten: bool = False


class Refused(Exception):
    """What a function may not do, in a sentence for whoever wrote it."""


class MapMade(Refused):
    """Two axes of a tensor are as long as the text, which the exercise wants to do without."""


class NoMap(TorchDispatchMode):
    """Looks at every tensor that PyTorch makes, and refuses maps of n x n numbers."""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else PyTorch imports its compiler in the middle of a check: two seconds."""
        return False

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for x in flat(result):
            if isinstance(x, Tensor) and sum(size >= self.n for size in x.shape) > 1:
                raise MapMade(
                    f"it makes a tensor of the shape {tuple(x.shape)}, a map of all {self.n} "
                    "tokens by all: make only maps of `size` tokens, and go on from part to part"
                )
        return result


def observe(function: Callable, cases: Sequence[Case], gradients: bool) -> list[Outcome]:
    """Call `function` on clones of every case's inputs, the first case once more at the end.

    `overwritten` says that a result was changed by a later call: a tensor kept between calls.
    """
    outcomes, results = [], []
    for case in (*cases, cases[0]):
        outcome = call(function, case)
        results.append(outcome.value)
        outcome.value = copy(outcome.value)  # as it was when it came back
        outcomes.append(outcome)
    for outcome, result in zip(outcomes, results, strict=True):
        outcome.overwritten = not identical(outcome.value, result)
    if gradients:
        for outcome, case in zip(outcomes, cases, strict=False):
            if not any(is_half(x) for x in case.inputs.values()):  # too coarse to compare
                _differentiate(function, case, outcome)
    return outcomes


def call(function: Callable, case: Case) -> Outcome:
    """One call on clones, without gradients."""
    given = {name: copy(value) for name, value in case.inputs.items()}
    try:
        with NoMap(case.no_map_of) if case.no_map_of else nullcontext():
            value = function(*given.values())
        _refuse_strange(value)
    except (Exception, SystemExit) as error:
        return Outcome(error=error)
    finally:
        _restore_pytorch()
    changed = [name for name in given if not identical(given[name], case.inputs[name])]
    return Outcome(value=value, changed=tuple(changed))


def _refuse_strange(value) -> None:
    """A tensor of a class of one's own may say that it equals any other."""
    for x in flat(value):
        if isinstance(x, Tensor) and type(x) not in (Tensor, Parameter):
            raise Refused(f"it returns a {type(x).__name__}, expected a plain torch.Tensor")
        if isinstance(x, Tensor) and x.layout != torch.strided:
            raise Refused("it returns a sparse tensor, expected one with all its numbers")


def _differentiate(function: Callable, case: Case, outcome: Outcome) -> None:
    """Gradients of sum(weights * outputs) with fixed weights, all different."""
    given = {name: copy(value) for name, value in case.inputs.items()}
    wanted = {name: x.requires_grad_() for name, x in _parts(given) if is_float(x)}
    try:
        outputs = [x for x in flat(function(*given.values())) if is_float(x) and x.requires_grad]
        loss = sum((x * weights_like(x)).sum() for x in outputs)
        found = [None] * len(wanted)
        if outputs:
            found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        outcome.gradients = dict(zip(wanted, found, strict=True))
    except (Exception, SystemExit) as error:
        outcome.gradient_error = error
    finally:
        _restore_pytorch()


def _parts(given: dict) -> Iterator[tuple[str, Any]]:
    """The inputs by name; those in a tuple by "cache[0]", "cache[1]"."""
    for name, value in given.items():
        inside = isinstance(value, tuple | list)
        yield from ((f"{name}[{i}]", x) for i, x in enumerate(value)) if inside else [(name, value)]


def _restore_pytorch() -> None:
    """A function under check may have changed what all others share."""
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


def weights_like(x: Tensor) -> Tensor:
    return torch.arange(1, x.numel() + 1, dtype=x.dtype, device=x.device).cos().reshape(x.shape)


def is_float(x) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def is_half(x) -> bool:
    return isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16)


def flat(value) -> list:
    """The parts of what was returned: a tuple's or list's, or the value alone."""
    return list(value) if isinstance(value, tuple | list) else [value]


def copy(value):
    """Tensors cloned with their layout, tuples (named ones become plain) and lists part by part,
    all else as it is."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return (list if isinstance(value, list) else tuple)(copy(part) for part in value)
    return value


def identical(a, b) -> bool:
    """To the bit; NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype
        return same and bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(identical, a, b))
    return a is b or a == b
