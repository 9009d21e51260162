"""This process among those that torchrun started."""

import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

EXPECTED = (ValueError, OSError, FloatingPointError)  # what a command turns into one sentence

PORT = "transnormer_edu/port"


def in_a_job() -> bool:
    """Whether this is one of the processes that `torchrun` (or a like of it) has started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def start(device: str = "auto") -> torch.device:
    """Meet the other processes; the device of this one: its own GPU, or the CPU.

    device as in `TrainSettings`. Outside a job of torchrun it is a job of one process.
    """
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        store, rank, world = _meeting_place() if in_a_job() else (dist.HashStore(), 0, 1)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    return torch.device("cuda" if cuda else "cpu")


def _meeting_place():
    """(store, rank, processes): where the processes leave each other their addresses.

    torchrun's own store outlives a restart, and with it the addresses of processes that are dead:
    who reads those waits in vain. So process 0 opens a new one, and leaves its port in torchrun's;
    a port where nobody answers was left by the process 0 of an earlier life.
    """
    shared, rank, world = next(dist.rendezvous("env://"))
    host = os.environ["MASTER_ADDR"]
    if rank == 0:
        own = dist.TCPStore(host, 0, world, is_master=True, wait_for_workers=False)
        shared.set(PORT, str(own.port))
        return own, rank, world
    while True:
        try:
            port = int(shared.get(PORT))
            own = dist.TCPStore(host, port, world, is_master=False, timeout=timedelta(seconds=2))
        except dist.DistNetworkError:
            continue
        own.set_timeout(shared.timeout)
        return own, rank, world


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
