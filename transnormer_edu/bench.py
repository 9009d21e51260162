"""How fast the chunked form is on this machine, beside PyTorch's fused softmax attention.

A ratio of two fastest times measured in one run, so that it means something on any machine; nothing
here is a test with a time limit.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

from transnormer_edu.attention import linear_attention
from transnormer_edu.decay import released_rates

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
SOFTMAX_UP_TO = 4096  # beyond, its n^2 makes the table slow and tells nothing new


class Row(NamedTuple):
    """Milliseconds at one length: forward alone, and forward with backward; None: not measured."""

    n: int
    linear: float
    linear_training: float
    softmax: float | None
    softmax_training: float | None


def attention_speed(
    lengths: tuple[int, ...] = LENGTHS, heads: int = 8, head_dim: int = 64, repeat: int = 7
) -> Iterator[Row]:
    """One `Row` for each length, float32, batch 1: chunked linear and fused causal softmax."""
    rate = released_rates(heads, 0, 2)
    for n in lengths:
        q, k, v = (torch.randn(1, heads, n, head_dim, requires_grad=True) for _ in "qkv")
        linear = lambda: linear_attention(q, k, v, rate)  # noqa: B023, E731
        softmax = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: B023, E731
        few = n <= SOFTMAX_UP_TO
        yield Row(
            n,
            _forward(linear, repeat),
            _training(linear, (q, k, v), repeat),
            _forward(softmax, repeat) if few else None,
            _training(softmax, (q, k, v), repeat) if few else None,
        )


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


def _forward(run: Callable, repeat: int) -> float:
    with torch.no_grad():
        return _fastest(run, repeat)


def _training(run: Callable, inputs: tuple, repeat: int) -> float:
    # Not backward(): adding to gradients that are there already would be timed too.
    return _fastest(lambda: torch.autograd.grad(run().sum(), inputs), repeat)


def _fastest(run: Callable, repeat: int) -> float:
    run()  # the first call pays for allocations
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)  # what else the machine does only ever adds
