"""Counting what processes send to each other.

    with MessageCounter() as sent:
        model(ids, labels=ids).backward()
    sent.bytes      {"all-reduce": 1056, "send": 480, ...}      of this process
    sent.times      {"all-reduce": 9, "send": 3, ...}

What is counted is the tensor that an operation is about: all-reduce: the tensor that is summed;
all-gather: all that comes together; reduce-scatter: all that is given; send, receive: the message.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# PyTorch's operation -> its name here, and which of its arguments is the larger side.
KINDS = {
    "c10d.allreduce_": ("all-reduce", 0),
    "_c10d_functional.all_reduce": ("all-reduce", 0),
    "_c10d_functional.all_reduce_": ("all-reduce", 0),
    "c10d.allgather_": ("all-gather", 0),
    "c10d._allgather_base_": ("all-gather", 0),
    "_c10d_functional.all_gather_into_tensor": ("all-gather", None),
    "c10d._reduce_scatter_base_": ("reduce-scatter", 1),
    "c10d.reduce_scatter_": ("reduce-scatter", 1),
    "_c10d_functional.reduce_scatter_tensor": ("reduce-scatter", 0),
    "c10d.broadcast_": ("broadcast", 0),
    "_c10d_functional.broadcast": ("broadcast", 0),
    "c10d.send": ("send", 0),
    "c10d.recv_": ("receive", 0),
}


class MessageCounter(TorchDispatchMode):
    """Counts bytes and operations by kind, of this process, while it is entered."""

    def __init__(self):
        super().__init__()
        self.bytes, self.times = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        kind, at = KINDS.get(func.name().replace("::", ".").rsplit(".default", 1)[0], (None, None))
        if kind is not None:
            self.bytes[kind] += _size(out if at is None else args[at])
            self.times[kind] += 1
        return out


def _size(x) -> int:
    if isinstance(x, torch.Tensor):
        return x.nbytes
    return sum(map(_size, x)) if isinstance(x, list | tuple) else 0
