"""Seconds on a device, and the two speeds that all others are compared with."""

import time
from collections.abc import Callable, Iterable
from statistics import median

import torch


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def typical(found: Iterable[float], device: torch.device) -> float:
    """The median; on a CPU, which other programs use as well, the smallest."""
    return median(found) if device.type == "cuda" else min(found)


def seconds(call: Callable, device: torch.device, rounds: int = 5, times: int = 1) -> float:
    """`typical` of `rounds`, each the mean of `times` calls; one call goes before, unmeasured."""
    call()
    found = []
    for _ in range(rounds):
        wait(device)
        begin = time.perf_counter()
        for _ in range(times):
            call()
        wait(device)
        found.append((time.perf_counter() - begin) / times)
    return typical(found, device)


def compute_type(device: torch.device) -> torch.dtype:
    """What models compute in here: bfloat16 on a GPU, float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def copy_rate(device: torch.device) -> float:
    """Bytes read plus written per second by a copy far larger than any cache."""
    x = torch.randn(2**29 if device.type == "cuda" else 2**26, device=device).to(torch.bfloat16)
    y = torch.empty_like(x)
    return 2 * x.nbytes / seconds(lambda: y.copy_(x), device, times=10)


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations per second of a product of two random square matrices."""
    n = 8192 if device.type == "cuda" else 1024
    x, y, z = (torch.randn(n, n, device=device).to(compute_type(device)) for _ in range(3))
    return 2 * n**3 / seconds(lambda: torch.mm(x, y, out=z), device, times=10)


def peak_bytes(device: torch.device) -> int | None:
    """Most memory allocated since `forget_peak`; None on a CPU, where nobody counts."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def forget_peak(device: torch.device) -> int | None:
    """Begin counting anew; the bytes that are allocated now."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
