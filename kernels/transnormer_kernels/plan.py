"""Which tiles a kernel runs with, and into how many segments the rows are cut: small tables."""

import functools
from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    """chunk: rows per step. columns: of v per program. warps and stages: Triton's num_*."""

    chunk: int
    columns: int
    warps: int
    stages: int


JOIN_CELLS = 4096  # numbers that a program of join_states_kernel holds: 32 per thread


def padded(size):
    """The next power of two, at least 16 (the smallest tile of tl.dot), that holds `size` columns."""
    return max(16, 1 << (size - 1).bit_length())


def scan_tiles(dtype, dk, dv):
    """The state slice (columns × dk, fp32) has to stay in registers beside one chunk's products.

    16 bit: 128 × 128 numbers are 64 registers in each of 256 threads. Chunks of 32 rows leave room
    for everything else in every layout; more rows gain nothing, as memory is the limit already.
    dk = 256 (LRPE) halves the columns. 32 bit: the products are formed without tensor cores, from
    operands in registers, so that tiles are small; 32 bit is for checking, not for speed.
    """
    dk, dv = padded(dk), padded(dv)
    if dtype == torch.float32:
        return Tiles(16, min(dv, 32), 4, 2) if dk <= 128 else Tiles(16, min(dv, 32), 4, 1)
    if dk <= 128:
        return Tiles(32, min(dv, 128), 8 if dv >= 128 else 4, 3)
    return Tiles(32, min(dv, 64), 8, 2)


def back_tiles(dtype, dk, dv):
    return Tiles(32, max(padded(dk), padded(dv)), 8 if max(dk, dv) > 64 else 4, 3)


def fused_back(dtype, dk, dv):
    """Whether dK and dV are computed in one walk: it holds the whole state, all columns at once."""
    return dtype != torch.float32 and max(dk, dv) <= 128


def state_tiles(dtype, dk, dv):
    """As for the scan; a sum beside the state takes the room of the products there."""
    return scan_tiles(dtype, dk, dv)


def v1_tiles(dtype, dk, dv):
    dk, dv = padded(dk), padded(dv)
    if dtype == torch.float32:
        return Tiles(16, min(dv, 32), 4, 1)
    return Tiles(64, min(dv, 64), 4, 2 if dk <= 128 else 1)


def norm_warps(width):
    """A row is held in registers: 16 numbers per thread."""
    return min(16, max(1, width // 512))


@functools.cache
def processors(device):
    """The GPU's multiprocessors: one program of the scan fills one. In the interpreter 4, so that
    tests meet segments at small sizes."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


MIN_ROWS = {"cuda": 512, "cpu": 32}


def segments(batch_heads, n, device):
    """How many segments: 1 where the heads alone fill the GPU, else as many as fill it.

    A second pass over k and v is what segments cost, so 1 unless half the GPU would stand idle.
    """
    rows = segment_rows(batch_heads, n, device)
    return -(-n // rows)


def segment_rows(batch_heads, n, device):
    """Rows per segment, a multiple of 32."""
    wanted = processors(device) // batch_heads
    wanted = max(1, min(wanted, n // MIN_ROWS[device.type]))
    return -(-n // (wanted * 32)) * 32
