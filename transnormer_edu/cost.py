"""What a computation costs: multiplications, bytes kept for its gradient, seconds.

The first two are counted, so they are the same on every machine; seconds are this machine's own.
"""

from collections.abc import Callable

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode


def multiplications(run: Callable[[], object]) -> int:
    """Multiplications in the matrix products of run(): an (a, b) by (b, c) product has a b c."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops() // 2  # PyTorch counts each with its addition, as 2


def kept_bytes(run: Callable[[], object]) -> int:
    """Bytes that run() leaves behind for the backward pass, its own inputs included.

    Each piece of memory counts once, however often it is kept. Inputs must require a gradient:
    without one nothing is kept.
    """
    kept = {}

    def note(tensor):
        memory = tensor.untyped_storage()
        kept[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        alive = run()  # while its result lives, no address is used twice
    del alive
    return sum(kept.values())


def seconds(run: Callable[[], object], at_least: float = 0.05) -> float:
    """Median time of one call, without gradients, over runs that take `at_least` s together."""
    with torch.no_grad():
        timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
        return timer.blocked_autorange(min_run_time=at_least).median
