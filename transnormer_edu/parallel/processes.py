"""This process among those of the job: how they meet, and what only the first does."""

import logging
import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from transnormer_edu.job import in_a_job
from transnormer_edu.settings import TrainSettings

EXPECTED = (ValueError, OSError, FloatingPointError)  # what a command turns into one sentence
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
PORT = "transnormer_edu/port"


def start(device: str = "auto") -> torch.device:
    """Meet the other processes; the device of this one: its own GPU, or the CPU.

    device as in `TrainSettings`. Outside a job of torchrun it is a job of one process.
    ValueError for a device that processes cannot share work on, or more processes than GPUs.
    """
    kind = TrainSettings(device=device).torch_device().type
    if kind not in BACKENDS:
        raise ValueError(
            f"a job runs on cuda or cpu, and {device} is {kind} here: give --device cpu"
        )
    if kind == "cuda":
        _take_gpu(int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count())
    # It says at each step that two small sums come one after the other.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    if not dist.is_initialized():
        store, rank, world = _meeting_place() if in_a_job() else (dist.HashStore(), 0, 1)
        dist.init_process_group(BACKENDS[kind], store=store, rank=rank, world_size=world)
    return torch.device(kind)


def _take_gpu(number: int, gpus: int) -> None:
    if number >= gpus:
        raise ValueError(
            f"process {number} of this machine has no GPU, there are {gpus}: start torchrun with "
            f"--nproc-per-node {gpus}, or give --device cpu"
        )
    torch.cuda.set_device(number)


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
