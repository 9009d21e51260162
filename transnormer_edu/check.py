"""What more than one file asks of its input, each in one sentence: given, expected, what to do.

    one_of("form", "fast", FORMS)           form is 'fast', expected one of parallel, recurrent, ...
    whole("heads", 2.5)                     heads is 2.5, expected a whole number of at least 1
    tensors(q=[1, 2])                       q is a list, expected a tensor: torch.as_tensor(q) ...

A wrong type of tensor is a TypeError, everything else a ValueError.
"""

from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # to compute with


def one_of(name: str, value, choices: Iterable[str]) -> None:
    """ValueError unless `value` is one of these words."""
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def is_whole(value, least: float = 0, below: float = float("inf")) -> bool:
    """Whether value is a whole number with least <= value < below; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= value < below


def whole(name: str, value, least: int = 1) -> int:
    """`value` as Python's int; ValueError unless it is a whole number of at least `least`."""
    if not is_whole(value, least):
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return int(value)


def plain(values: Iterable) -> list:
    """The values, tensors among them as Python's numbers."""
    return [value.tolist() if isinstance(value, torch.Tensor) else value for value in values]


def is_number(value) -> bool:
    """Whether value is a number; True and False are none, infinity and NaN are."""
    return isinstance(value, Real) and not isinstance(value, bool)


def float_type(name: str, value) -> torch.dtype:
    """A type to compute with, as torch has it or by its name; ValueError for anything else."""
    dtype = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype) or dtype not in FLOATS:
        raise ValueError(f"{name} is {value!r}, expected a floating type such as torch.float32")
    return dtype


def kind(name: str, value, expected: type) -> None:
    """TypeError unless `value` is of this class."""
    if not isinstance(value, expected):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a {expected.__name__}")


def path(name: str, value) -> Path:
    """`value` as a Path; TypeError unless it can be one."""
    try:
        return Path(value)
    except TypeError:
        raise TypeError(
            f"{name} is a {type(value).__name__}, expected a path: a str or a Path"
        ) from None


def present(**given) -> dict:
    """What is not None: the optional arguments that were given."""
    return {name: value for name, value in given.items() if value is not None}


def tensors(**given) -> None:
    """TypeError unless all that is given are tensors."""
    for name, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{name} is a {type(value).__name__}, expected a tensor: torch.as_tensor({name}) "
                "makes one"
            )


def floating(**given) -> None:
    """TypeError unless all that is given are tensors of a floating type."""
    tensors(**given)
    for name, value in given.items():
        if not value.is_floating_point():
            raise TypeError(f"got {name} of type {value.dtype}; expected a floating type")


def one_device(**given) -> None:
    """ValueError unless all tensors that are given are on one device."""
    if len({value.device for value in given.values()}) > 1:
        found = ", ".join(f"{name} on {value.device}" for name, value in given.items())
        raise ValueError(f"got {found}; expected one device: x.to(device) moves a tensor")
