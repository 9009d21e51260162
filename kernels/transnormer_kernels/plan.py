"""Which tiles a kernel runs with, and into how many segments the rows are cut: small tables.

Every entry is compiled for compute capability 8.0, 9.0 and 10.0 in the tests and must neither spill
registers nor exceed the shared memory. "TMA" is the copy engine of Hopper and later.
"""

import functools
from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    """chunk: rows per step. columns: of v per program. warps and stages: Triton's num_*."""

    chunk: int
    columns: int
    warps: int
    stages: int


LARGEST_CHUNK = 64
JOIN_CELLS = 4096  # numbers that a program of join_states_kernel holds: 32 per thread


def padded(size):
    """The next power of two that holds `size` columns, at least 16: tl.dot's smallest tile."""
    return max(16, 1 << (size - 1).bit_length())


def scan_tiles(dtype, dk, dv, tma):
    """For the scan and the segments' sums. The limit is registers: the state slice stays in them.

    16 bit, dk ≤ 128   128 columns of state are 64 registers in each of 256 threads: one program per
                       multiprocessor, all columns at once, so that q and k are read once. Chunks of
                       64 rows fill the tensor cores; without TMA the pointers need registers too,
                       and only 32 rows fit. 3 stages: with 2, loads do not overlap the products.
    16 bit, dk = 256   (LRPE doubles dk) half the columns, half the rows.
    32 bit             products without tensor cores, operands in registers: small tiles. For
                       checking, not for speed.
    """
    dk, dv = padded(dk), padded(dv)
    if dtype == torch.float32:
        return Tiles(16, min(dv, 32), 8, 1) if dk <= 128 else Tiles(16, 32, 4, 1)
    if dk <= 128:
        return Tiles(64 if tma else 32, min(dv, 128), 8 if dv >= 128 else 4, 3)
    return Tiles(32, 64, 8, 3 if tma else 2)


def fused_back(dtype, dk, dv, tma, capability):
    """Whether dK and dV are computed in one walk, rather than by two scans that read twice.

    It holds the whole state, all columns at once, and fits so far on Hopper alone.
    """
    return dtype != torch.float32 and tma and capability == 9 and max(dk, dv) <= 128


def back_tiles(dk, dv):
    """As for the scan; 229 of 232 KB of shared memory where dk or dv is over 64."""
    widest = padded(max(dk, dv))
    return Tiles(64 if widest >= 64 else 32, padded(dv), 8 if widest > 64 else 4, 3)


def v1_tiles(dtype, dk, dv):
    """For the left product of the first paper: a block of rows against blocks of columns."""
    dk, dv = padded(dk), padded(dv)
    if dtype == torch.float32:
        return Tiles(16, min(dv, 32), 4, 1)
    return Tiles(64, min(dv, 64), 4, 2) if dk <= 128 else Tiles(32, min(dv, 64), 4, 2)


def projection_tiles(width, out, pair=False):
    """For one token: `columns` features per program, as few warps as can hold them.

    One warp needs no barrier for its sums, and small programs make room early for those of the
    next kernel (see `early_launch`). A thread holds at most 128 numbers, those of a second matrix
    (`pair`) included, 16 loads of 16 bytes: more spill. Few features: half as many per program, so
    that every multiprocessor has some. Measured on an H200, a token of the 385M model: 0.35 ms;
    with four times the warps and twice the features 0.39 ms.
    """
    width = padded(width)
    warps = max(1, width // 2048)
    columns = 128 * 32 * warps // (width * (2 if pair else 1))
    return Tiles(1, max(1, min(columns, 2 if out <= 2048 else 8)), warps, 1)


def norm_warps(width):
    """A row is held in registers: 16 numbers per thread."""
    return min(16, max(1, width // 512))


def row_tiles(dtype):
    """For one row against weights of few bits: `chunk` words of each column per step.

    128 programs for 4096 columns fill a GPU; 3 stages keep 50 KB on the way to each of them.
    """
    return Tiles(64 if dtype == torch.float32 else 128, 32, 8, 3)


def product_rows(dtype, rows):
    """Rows of x per program: the more, the more often an unpacked weight is used."""
    return 16 if rows <= 16 or dtype == torch.float32 else 64 if rows <= 64 else 128


def product_tiles(dtype, rows):
    """For many rows against weights of few bits: `chunk` inputs per step."""
    if dtype == torch.float32:
        return Tiles(32, 32, 4, 1)
    size = product_rows(dtype, rows)
    return Tiles(64, 32, 4, 3) if size == 16 else Tiles(64, 128, 8, 3)


@functools.cache
def processors(device):
    """The GPU's multiprocessors: one program of the scan fills one.

    In the interpreter 4, so that tests meet segments at small sizes.
    """
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def capability(device):
    """The major compute capability; the interpreter plays a Hopper."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9


def segment_rows(batch_heads, n, device):
    """Rows per segment, a multiple of the largest chunk.

    Segments read k and v twice, so there is one (all rows) where the heads fill the GPU; else as
    many as fill it, none shorter than two chunks: below that two more launches cost too much.
    """
    wanted = max(1, min(processors(device) // batch_heads, n // (2 * LARGEST_CHUNK)))
    return -(-n // (wanted * LARGEST_CHUNK)) * LARGEST_CHUNK


def early_launch(device, early):
    """Options of a kernel that begins while the one before it still runs: from Hopper on.

    The kernels of one token are short; between two of them a GPU stands still for as long as half
    of one takes. So each lets the next one begin at once (`gdc_launch_dependents`), that one asks
    for its weights, and only then waits until what it reads has been written (`gdc_wait`).
    """
    early = early and device.type == "cuda" and capability(device) >= 9
    return {"EARLY": True, "launch_pdl": True} if early else {"EARLY": False}
