"""A projection of a few rows, with what stands before and after it, in one launch: for decoding.

    y = W f(x)                          f(x) = x, srmsnorm(x) or gate ⊙ srmsnorm(x)
    y = (W f(x)) ⊙ (W₂ f(x))            with a pair of matrices: the gated unit
    y = y + add                         the residual stream

One token needs every weight once and almost no arithmetic, so a layer takes as long as reading its
matrices, if nothing else is in the way: no launch between two matrices but the one that reads them.
A program holds a few rows of W, all their columns at once: every load is under way before the
first number is needed. x is small, and each program forms f(x) for itself.
"""

import torch
import triton
import triton.language as tl

from .checks import DTYPES, check_launch, check_tensor, require
from .norm import EPS
from .plan import projection_tiles

MOST_ROWS = 8  # of x: beyond, a matrix product on the tensor cores is faster


@triton.jit
def projection_kernel(
    x, gate, w, w2, add, y, x_stride, gate_stride, add_stride, y_stride, rows, eps, activated,
    IN: tl.constexpr, OUT: tl.constexpr, IN_TILE: tl.constexpr, OUT_TILE: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, PAIR: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """OUT_TILE features of y, for all rows of x."""
    i = tl.arange(0, IN_TILE)
    o = tl.program_id(0) * OUT_TILE + tl.arange(0, OUT_TILE)
    at = o[:, None] * IN + i[None, :]
    inside = (o[:, None] < OUT) & (i[None, :] < IN)
    tile = tl.load(w + at, inside, other=0.0)
    if PAIR:
        tile2 = tl.load(w2 + at, inside, other=0.0)
    for row in range(rows):
        f = tl.load(x + row * x_stride + i, i < IN, other=0.0).to(tl.float32)
        if NORM:
            f *= tl.rsqrt(tl.sum(f * f) / IN + eps)
        if GATED:
            f *= tl.load(gate + row * gate_stride + i, i < IN, other=0.0).to(tl.float32)
        result = tl.sum(tile.to(tl.float32) * f[None, :], axis=1)
        if PAIR:
            result *= tl.sum(tile2.to(tl.float32) * f[None, :], axis=1)
        result = tl.where(o < activated, result * tl.sigmoid(result), result)
        if ADD:
            result += tl.load(add + row * add_stride + o, o < OUT, other=0.0).to(tl.float32)
        tl.store(y + row * y_stride + o, result.to(y.dtype.element_ty), o < OUT)


def projection(x, w, *, norm=False, gate=None, pair=None, silu_below=0, add=None, eps=EPS):
    """y = w f(x), for at most 8 rows x, with all that surrounds it (see above). No gradients.

    Args: x (b, in), w and pair (out, in), gate (b, in), add (b, out), all of one type, fp16, bf16
    or fp32, of unit last stride. norm: f includes srmsnorm (a gate needs it). silu_below: the first
    so many features of y go through silu. Returns y (b, out).
    Raises TypeError or ValueError for what does not fit, before any launch.
    """
    check_tensor("x", x, (None, None), DTYPES, x.device)
    (b, width), out = x.shape, w.shape[0]
    require(1 <= b <= MOST_ROWS, ValueError, f"x has {b} rows; 1 to {MOST_ROWS} were expected.")
    require(norm or gate is None, ValueError, "a gate came without norm; it multiplies the norm.")
    for name, tensor, shape in (
        ("w", w, (out, width)), ("pair", pair, (out, width)),
        ("gate", gate, (b, width)), ("add", add, (b, out)),
    ):  # fmt: skip
        if tensor is not None:
            check_tensor(name, tensor, shape, (x.dtype,), x.device)
    matrices = [m for m in (w, pair) if m is not None]
    require(
        all(m.is_contiguous() for m in matrices)
        and all(t is None or t.stride(-1) == 1 for t in (x, gate, add)), ValueError,
        "matrices must be contiguous, and rows of unit stride: call .contiguous() first.",
    )  # fmt: skip
    check_launch(x)
    y = torch.empty(b, out, dtype=x.dtype, device=x.device)
    tiles = projection_tiles(width, out)
    stride = lambda t: 0 if t is None else t.stride(0)  # noqa: E731
    with torch.cuda.device_of(x):
        projection_kernel[(triton.cdiv(out, tiles.columns),)](
            x, gate, w, pair, add, y, stride(x), stride(gate), stride(add), y.stride(0), b, eps,
            silu_below, IN=width, OUT=out, IN_TILE=triton.next_power_of_2(width),
            OUT_TILE=tiles.columns, NORM=norm, GATED=gate is not None, PAIR=pair is not None,
            ADD=add is not None, num_warps=tiles.warps,
        )  # fmt: skip
    return y
