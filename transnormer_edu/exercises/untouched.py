"""What everybody shares, PyTorch above all, as it was before a student's function ran.

    shared = Shared()
    ...                      the function runs
    shared.put_back()        "torch.stack" where that was changed, or None; all is as before

The judge compares with these very functions: one that is changed would make any answer right.
"""

import builtins
import math
import sys
from collections.abc import Iterator
from types import ModuleType

import torch
import torch.nn.functional as F

GONE = object()


class Shared:
    """Remembers every name in PyTorch's main places, in Python's own, and in this package."""

    def __init__(self):
        ours = [module for name, module in sys.modules.items() if name.startswith(__package__)]
        places = (torch, torch.Tensor, F, torch.linalg, math, builtins, *ours)
        self.before = [(place, dict(vars(place))) for place in places]

    def put_back(self) -> str | None:
        """The first name that has changed since, or None; puts everything back."""
        found = [self._put_back(*change) for change in self._changes()]
        return next(iter(found), None) or self._leave_modes()

    def _changes(self) -> Iterator[tuple]:
        for place, before in self.before:
            now = dict(vars(place))
            names = before if isinstance(place, ModuleType) else before | now  # modules may grow
            for name in names:
                was = before.get(name, GONE)
                if now.get(name, GONE) is not was:
                    yield place, name, was

    @staticmethod
    def _put_back(place, name: str, was) -> str:
        if was is GONE:
            delattr(place, name)
        else:
            setattr(place, name, was)
        return f"{place.__name__}.{name}"

    @staticmethod
    def _leave_modes() -> str | None:
        """A mode of PyTorch sees every operation, and may answer in its place."""
        entered = torch._C._len_torch_function_stack()
        for _ in range(entered):
            torch._C._pop_torch_function_stack()
        return "PyTorch's mode" if entered else None
