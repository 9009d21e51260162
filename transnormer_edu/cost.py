"""What a computation costs: multiplications, bytes moved, bytes kept for its gradient, seconds.

Each function takes a function and its arguments. The first three are counted, so they are the same
on every machine; seconds are this machine's own.
"""

from collections.abc import Callable
from weakref import WeakSet

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode


def multiplications(function: Callable, *arguments) -> int:
    """Multiplications in the matrix products of a call: (a, b) times (b, c) has a b c of them."""
    counter = FlopCounterMode(display=False)
    with counter:
        function(*arguments)
    return counter.get_total_flops() // 2  # PyTorch counts each with its addition, as 2


def moved_bytes(function: Callable, *arguments) -> int:
    """Bytes asked of the memory: every operator reads its inputs and writes its result.

    In PyTorch every operator is a kernel of its own, which keeps nothing for the next one. A view
    moves nothing. No gradients. Tensors on the device "meta", which have no numbers, will do.
    """
    counter = _Traffic()
    with torch.no_grad(), counter:
        function(*arguments)
    return counter.bytes


class _Traffic(TorchDispatchMode):
    """Sees every operator that runs, and adds up the sizes of the tensors it takes and gives."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if not (operator.is_view or operator is torch.ops.aten._unsafe_view.default):
            moved = tree_leaves((args, kwargs, result))
            self.bytes += sum(x.nbytes for x in moved if isinstance(x, torch.Tensor))
        return result


def kept_bytes(function: Callable, *arguments) -> int:
    """Bytes that a call leaves behind for the backward pass, its own inputs included.

    Each piece of memory counts once, however often it is kept; what is let go of before the call
    ends does not count. Arguments must require a gradient: without one nothing is kept.
    """
    kept = WeakSet()

    def note(tensor):
        one = _Kept(tensor.detach())  # else a result would hold the graph that holds it
        kept.add(one)
        return one

    with torch.enable_grad(), saved_tensors_hooks(note, lambda one: one.tensor):
        result = function(*arguments)
    memories = {one.tensor.untyped_storage().data_ptr(): one.tensor for one in kept}
    del result  # only now: what is kept for it lives as long as it does
    return sum(tensor.untyped_storage().nbytes() for tensor in memories.values())


class _Kept:
    """Stands for a tensor in autograd's hands; gone when those let go."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def seconds(function: Callable, *arguments, at_least: float = 0.05) -> float:
    """Time of one call on one core, without gradients: the fastest of the runs in `at_least` s.

    One core and the fastest, because what else the machine does only ever adds.
    """
    names = {"function": function, "arguments": arguments}
    with torch.no_grad():
        timer = Timer("function(*arguments)", globals=names, num_threads=1)
        return min(timer.blocked_autorange(min_run_time=at_least).times)
