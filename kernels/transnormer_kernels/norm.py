"""SRMSNorm and the gate product in Triton: one read, one write.

    y  = ρ x                        ρ = rsqrt(mean(x²) + ε), ε = 1e-6, no weight
    dx = ρ (dy − x̂ mean(x̂ ⊙ dy))    x̂ = ρ x

    gated:  y = u ⊙ ρ x             du = dy ⊙ x̂, and dx as above with u ⊙ dy for dy

The mean runs over the last dimension in fp32 (arXiv 2307.14995). Nothing is saved
but the inputs: the backward has to read x anyway, and ρ costs no traffic.
"""

import torch
import triton
import triton.language as tl

from .checks import check_launch, check_span, require
from .plan import norm_warps

EPS = 1e-6


@triton.jit
def row_of(x, strides, row, inner, WIDTH: tl.constexpr, TILE: tl.constexpr):
    """Pointers and mask of one row; rows are numbered through (outer, inner)."""
    c = tl.arange(0, TILE)
    x += (row // inner).to(tl.int64) * strides[0] + (row % inner).to(tl.int64) * strides[1]
    return x + c * strides[2], c < WIDTH


@triton.jit
def forward_kernel(
    x, u, y, x_strides, u_strides, y_strides, inner, eps,
    WIDTH: tl.constexpr, TILE: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """One row: y = ρ x, or u ⊙ ρ x."""
    row = tl.program_id(0)
    at, inside = row_of(x, x_strides, row, inner, WIDTH, TILE)
    x_row = tl.load(at, inside, other=0.0).to(tl.float32)
    rho = tl.rsqrt(tl.sum(x_row * x_row) / WIDTH + eps)
    y_row = x_row * rho
    if GATED:
        at, inside = row_of(u, u_strides, row, inner, WIDTH, TILE)
        y_row *= tl.load(at, inside, other=0.0).to(tl.float32)
    at, inside = row_of(y, y_strides, row, inner, WIDTH, TILE)
    tl.store(at, y_row.to(y.dtype.element_ty), inside)


@triton.jit
def backward_kernel(
    x, u, dy, dx, du, x_strides, u_strides, dy_strides, dx_strides, du_strides, inner, eps,
    WIDTH: tl.constexpr, TILE: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """One row: dx, and with the gate du."""
    row = tl.program_id(0)
    at, inside = row_of(x, x_strides, row, inner, WIDTH, TILE)
    x_row = tl.load(at, inside, other=0.0).to(tl.float32)
    at, inside = row_of(dy, dy_strides, row, inner, WIDTH, TILE)
    dy_row = tl.load(at, inside, other=0.0).to(tl.float32)
    rho = tl.rsqrt(tl.sum(x_row * x_row) / WIDTH + eps)
    x_row *= rho  # x̂
    if GATED:
        at, inside = row_of(du, du_strides, row, inner, WIDTH, TILE)
        tl.store(at, (dy_row * x_row).to(du.dtype.element_ty), inside)
        at, inside = row_of(u, u_strides, row, inner, WIDTH, TILE)
        dy_row *= tl.load(at, inside, other=0.0).to(tl.float32)
    dx_row = rho * (dy_row - x_row * (tl.sum(x_row * dy_row) / WIDTH))
    at, inside = row_of(dx, dx_strides, row, inner, WIDTH, TILE)
    tl.store(at, dx_row.to(dx.dtype.element_ty), inside)


def as_rows(x):
    """x as (outer, inner, width), a view. More than three dimensions must fold without a copy."""
    if x.ndim <= 3:
        return x[(None,) * (3 - x.ndim)]
    try:
        return x.view(x.shape[0], -1, x.shape[-1])
    except RuntimeError:
        raise ValueError(
            f"srmsnorm: a tensor of shape {tuple(x.shape)} with strides {x.stride()} cannot be "
            "read as rows without a copy; call .contiguous() on it first."
        ) from None


def launch(kernel, tensors, width, eps, gated):
    """Runs `kernel` over all rows; tensors in the kernel's order, None where there is no gate."""
    views = [None if x is None else as_rows(x) for x in tensors]
    outer, inner, _ = views[0].shape
    tile = triton.next_power_of_2(width)
    strides = [(0, 0, 0) if x is None else x.stride() for x in views]
    with torch.cuda.device_of(views[0]):
        kernel[(outer * inner,)](
            *views, *strides, inner, eps,
            WIDTH=width, TILE=tile, GATED=gated, num_warps=norm_warps(tile),
        )  # fmt: skip


@torch.library.custom_op("transnormer::srmsnorm", mutates_args=())
def srmsnorm_op(x: torch.Tensor, u: torch.Tensor | None, eps: float) -> torch.Tensor:
    y = torch.empty_like(x)
    if y.numel():
        launch(forward_kernel, [x, u, y], x.shape[-1], eps, u is not None)
    return y


@torch.library.custom_op("transnormer::srmsnorm_backward", mutates_args=())
def srmsnorm_backward_op(
    dy: torch.Tensor, x: torch.Tensor, u: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    dx = torch.empty_like(x)
    if dy.ndim > 3:  # it lies as whoever read y left it, which need not fold into rows
        dy = dy.contiguous()
    du = x.new_empty(0) if u is None else torch.empty_like(u)
    if dx.numel():
        gate = None if u is None else du
        launch(backward_kernel, [x, u, dy, dx, gate], x.shape[-1], eps, u is not None)
    return dx, du


@srmsnorm_op.register_fake
def _(x, u, eps):
    return torch.empty_like(x)


@srmsnorm_backward_op.register_fake
def _(dy, x, u, eps):
    return torch.empty_like(x), x.new_empty(0) if u is None else torch.empty_like(u)


def save_inputs(ctx, inputs, output):
    x, u, ctx.eps = inputs
    ctx.save_for_backward(x, u)


def backward(ctx, dy):
    x, u = ctx.saved_tensors
    dx, du = torch.ops.transnormer.srmsnorm_backward(dy, x, u, ctx.eps)
    return dx, None if u is None else du, None


srmsnorm_op.register_autograd(backward, setup_context=save_inputs)


def check_rows(name, x, like=None):
    require(
        isinstance(x, torch.Tensor),
        TypeError,
        f"srmsnorm: {name} is a {type(x).__name__}; pass a tensor.",
    )
    require(
        x.dtype in (torch.float16, torch.bfloat16, torch.float32), TypeError,
        f"srmsnorm: {name} is {x.dtype}; it takes float16, bfloat16 or float32.",
    )  # fmt: skip
    require(
        x.ndim >= 1 and 1 <= x.shape[-1] <= 16384, ValueError,
        f"srmsnorm: {name} has shape {tuple(x.shape)}; the last dimension must be 1 to 16384 wide.",
    )  # fmt: skip
    check_span(f"srmsnorm: {name}", x, 1)
    if like is not None:
        require(
            x.shape == like.shape and x.dtype == like.dtype and x.device == like.device, ValueError,
            f"srmsnorm_gate: u is {tuple(x.shape)} {x.dtype} on {x.device}, x is "
            f"{tuple(like.shape)} {like.dtype} on {like.device}; they must agree.",
        )  # fmt: skip


def srmsnorm(x, eps=EPS):
    """y = x · rsqrt(mean(x²) + eps) over the last dimension.

    Args: x (…, d), fp16, bf16 or fp32, any strides of up to three axes; more must fold into rows.
    Returns a tensor like x.
    Raises TypeError or ValueError for what does not fit, before any launch.
    """
    check_rows("x", x)
    as_rows(x)
    check_launch(x)
    return torch.ops.transnormer.srmsnorm(x, None, float(eps))


def srmsnorm_gate(x, u, eps=EPS):
    """y = u ⊙ srmsnorm(x) in one pass: the last step of gated linear attention.

    Args: x and u (…, d) of one shape and dtype, strides as for `srmsnorm`. Returns a tensor like x.
    Raises TypeError or ValueError for what does not fit, before any launch.
    """
    check_rows("x", x)
    check_rows("u", u, like=x)
    as_rows(x), as_rows(u)
    check_launch(x)
    return torch.ops.transnormer.srmsnorm(x, u, float(eps))
