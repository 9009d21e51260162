"""How fast the chunked form is on this machine, beside PyTorch's fused softmax attention.

A ratio of two fastest times measured in one run, so that it means something on any machine; nothing
here is a test with a time limit.
"""

import ctypes
import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

from transnormer_edu.attention import linear_attention
from transnormer_edu.decay import released_rates

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
SOFTMAX_UP_TO = 4096  # beyond, its n^2 makes the table slow and tells nothing new
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of glibc's malloc.h


class Row(NamedTuple):
    """Milliseconds at one length: forward alone, and forward with backward; None: not measured."""

    n: int
    linear: float
    linear_training: float
    softmax: float | None
    softmax_training: float | None


def report() -> Iterator[str]:
    """The whole measurement as lines of text, with memory that is warm at every length."""
    keep_freed_memory()
    return table(attention_speed())


def keep_freed_memory() -> None:
    """Have this process keep memory that was freed, instead of giving it back to the system.

    On Linux a freed tensor of 32 MiB, here n = 16384, goes back at once, and a smaller one does
    not. Getting it again costs a page fault for every 4 KiB, a tenth of the time at that length
    alone: the growth from 8192 to 16384 would be the system's.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def attention_speed(
    lengths: tuple[int, ...] = LENGTHS, heads: int = 8, head_dim: int = 64, repeat: int = 15
) -> Iterator[Row]:
    """One `Row` for each length, float32, batch 1: chunked linear and fused causal softmax.

    The fastest of `repeat` rounds, and every round measures all lengths: a minute in which the
    machine is busy with something else then slows all of them, not one.
    """
    runs = [(n, name, run) for n in lengths for name, run in _runs(n, heads, head_dim)]
    fastest = defaultdict(lambda: math.inf)
    for _ in range(repeat):
        for n, name, run in runs:
            fastest[n, name] = min(fastest[n, name], _milliseconds(run))
    for n in lengths:
        yield Row(n, *(fastest.get((n, name)) for name in Row._fields[1:]))


def _runs(n: int, heads: int, head_dim: int) -> Iterator[tuple[str, Callable]]:
    """What is timed at length n, by the name of its column."""
    q, k, v = (torch.randn(1, heads, n, head_dim, requires_grad=True) for _ in "qkv")
    rate = released_rates(heads, 0, 2)
    yield from _both("linear", lambda: linear_attention(q, k, v, rate), (q, k, v))
    if n <= SOFTMAX_UP_TO:
        softmax = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: E731
        yield from _both("softmax", softmax, (q, k, v))


def _both(name: str, forward: Callable, inputs: tuple) -> Iterator[tuple[str, Callable]]:
    yield name, torch.no_grad()(forward)
    # Not backward(): adding to gradients that are there already would be timed too.
    yield f"{name}_training", lambda: torch.autograd.grad(forward().sum(), inputs)


def table(rows: Iterator[Row]) -> Iterator[str]:
    """The rows as lines of text, with ratios and the growth from one length to the next."""
    yield f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}, fp32"
    yield "          milliseconds, forward / with backward     softmax     growth of"
    yield "     n            linear           softmax         / linear      linear"
    before = None
    for row in rows:
        yield f"{row.n:6d}" + "".join(
            [
                _pair(row.linear, row.linear_training),
                _pair(row.softmax, row.softmax_training),
                _pair(
                    _ratio(row.softmax, row.linear),
                    _ratio(row.softmax_training, row.linear_training),
                ),
                _growth(before, row),
            ]
        )
        before = row


def _ratio(one: float | None, other: float) -> float | None:
    return None if one is None else one / other


def _growth(before: Row | None, row: Row) -> str:
    if before is None:
        return ""
    return _pair(row.linear / before.linear, row.linear_training / before.linear_training)


def _pair(forward: float | None, training: float | None) -> str:
    return f"{'-':>18}" if forward is None else f"{forward:9.2f} / {training:6.2f}"


def _milliseconds(run: Callable) -> float:
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)
