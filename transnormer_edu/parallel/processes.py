"""This process among those that torchrun started."""

import os
from collections.abc import Callable

import torch
import torch.distributed as dist

EXPECTED = (ValueError, OSError, FloatingPointError)  # what a command turns into one sentence


def started_by_torchrun() -> bool:
    """Whether this process is one of those that `torchrun` starts."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def start(device: str = "auto") -> torch.device:
    """Meet the other processes; the device of this one: its own GPU, or the CPU.

    device as in `TrainSettings`. Without torchrun it is a job of one process.
    """
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        alone = {} if started_by_torchrun() else dict(store=dist.HashStore(), rank=0, world_size=1)
        dist.init_process_group(backend, **alone)
    return torch.device("cuda" if cuda else "cpu")


def stop() -> None:
    """Wait for the others, and take leave."""
    dist.barrier()
    dist.destroy_process_group()


def is_first() -> bool:
    """Whether this is process 0, the one that prints and writes logs."""
    return dist.get_rank() == 0


def on_first(action: Callable, *args):
    """`action` in process 0; an error there is raised in all: none is left waiting."""
    error = None
    if is_first():
        try:
            action(*args)
        except EXPECTED as raised:
            error = raised
    box = [error]
    dist.broadcast_object_list(box, src=0)
    if box[0] is not None:
        raise box[0]
