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
from .plan import early_launch, projection_tiles

MOST_ROWS = 8  # of x: beyond, a matrix product on the tensor cores is faster


@triton.jit
def projection_kernel(
    x, gate, w, w2, add, y, x_stride, gate_stride, add_stride, y_stride, rows, eps, activated,
    IN: tl.constexpr, OUT: tl.constexpr, IN_TILE: tl.constexpr, OUT_TILE: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, PAIR: tl.constexpr, ADD: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """OUT_TILE features of y, for all rows of x. EARLY: see `early_launch`."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    i = tl.arange(0, IN_TILE)
    o = tl.program_id(0) * OUT_TILE + tl.arange(0, OUT_TILE)
    at = o[:, None] * IN + i[None, :]
    inside = (o[:, None] < OUT) & (i[None, :] < IN)
    tile = tl.load(w + at, inside, other=0.0)
    if PAIR:
        tile2 = tl.load(w2 + at, inside, other=0.0)
    if EARLY:
        tl.extra.cuda.gdc_wait()  # for x, gate and add
    for row in range(rows):
        f = tl.load(x + row * x_stride + i, i < IN, other=0.0).to(tl.float32)
        norm = 1.0
        if NORM:  # one number for the row: it may as well multiply the result
            norm = tl.rsqrt(tl.sum(f * f) / IN + eps)
        if GATED:
            f *= tl.load(gate + row * gate_stride + i, i < IN, other=0.0).to(tl.float32)
        result = norm * tl.sum(tile.to(tl.float32) * f[None, :], axis=1)
        if PAIR:
            result *= norm * tl.sum(tile2.to(tl.float32) * f[None, :], axis=1)
        result = tl.where(o < activated, result * tl.sigmoid(result), result)
        if ADD:
            result += tl.load(add + row * add_stride + o, o < OUT, other=0.0).to(tl.float32)
        tl.store(y + row * y_stride + o, result.to(y.dtype.element_ty), o < OUT)


def check_projection(x, w, norm, gate, pair, silu_below, add):
    """TypeError or ValueError for what does not fit."""
    check_tensor("x", x, (None, None), DTYPES)
    b, width = x.shape
    check_tensor("w", w, (None, width), (x.dtype,), x.device)
    out = w.shape[0]
    require(1 <= b <= MOST_ROWS, ValueError, f"x has {b} rows; 1 to {MOST_ROWS} were expected.")
    require(norm or gate is None, ValueError, "a gate came without norm; it multiplies the norm.")
    require(
        0 <= silu_below <= out, ValueError, f"silu_below is {silu_below}; 0 to {out} was expected."
    )
    optional = {"pair": (pair, w.shape), "gate": (gate, x.shape), "add": (add, (b, out))}
    optional = {name: two for name, two in optional.items() if two[0] is not None}
    for name, (tensor, shape) in optional.items():
        check_tensor(name, tensor, shape, (x.dtype,), x.device)
    given = {"x": x, "w": w} | {name: tensor for name, (tensor, _) in optional.items()}
    for name, tensor in given.items():
        ordered = tensor.is_contiguous() if name in ("w", "pair") else tensor.stride(-1) == 1
        require(
            ordered, ValueError,
            f"{name} has strides {tensor.stride()}; matrices must be contiguous, and rows of unit "
            "stride: call .contiguous() first.",
        )  # fmt: skip
    require(
        not torch.is_grad_enabled() or not any(x.requires_grad for x in given.values()),
        ValueError,
        "projection has no gradient, but an input requires one; call it under torch.no_grad().",
    )


def projection(
    x, w, *, norm=False, gate=None, pair=None, silu_below=0, add=None, eps=EPS, early=False
):
    """y = w f(x), for at most 8 rows x, with all that surrounds it (see above). No gradients.

    Args: x (b, in), w and pair (out, in), gate (b, in), add (b, out), all of one type, fp16, bf16
    or fp32, of unit last stride. norm: f includes srmsnorm (a gate needs it). silu_below: the first
    so many features of y go through silu. early: on Hopper and later w and pair may be read while
    the kernels before this one still run; it is for calls one after another, as in decoding, where
    none of them writes what the others read early. Returns y (b, out).
    Raises TypeError or ValueError for what does not fit, before any launch.
    """
    check_projection(x, w, norm, gate, pair, silu_below, add)
    check_launch(x)
    (b, width), out = x.shape, w.shape[0]
    y = torch.empty(b, out, dtype=x.dtype, device=x.device)
    tiles = projection_tiles(width, out, pair is not None)
    stride = lambda t: 0 if t is None else t.stride(0)  # noqa: E731
    with torch.cuda.device_of(x):
        projection_kernel[(triton.cdiv(out, tiles.columns),)](
            x, gate, w, pair, add, y, stride(x), stride(gate), stride(add), y.stride(0), b, eps,
            silu_below, IN=width, OUT=out, IN_TILE=triton.next_power_of_2(width),
            OUT_TILE=tiles.columns, NORM=norm, GATED=gate is not None, PAIR=pair is not None,
            ADD=add is not None, num_warps=tiles.warps, **early_launch(x.device, early),
        )  # fmt: skip
    return y
