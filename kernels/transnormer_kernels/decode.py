"""One token: update the state and read it, in one launch (arXiv 2307.14995).

    S = λ S + kᵀ v        in place, fp32
    o = q S

This is the robust recurrence: it keeps S itself, never λ^(-t) S, which overflows.
"""

import torch
import triton
import triton.language as tl

from .checks import DTYPES, check_launch, check_rate, check_tensor, require
from .plan import padded
from .scan import decay_power, load_rate

COLUMNS = 32  # of the state per program: enough programs to fill a GPU from a single sequence


@triton.jit
def decode_kernel(
    q, k, v, rate, state, o,
    q_strides, k_strides, v_strides, rate_strides, state_strides, o_strides, heads,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
):  # fmt: skip
    """One head, DV_TILE columns of its state."""
    head = tl.program_id(0).to(tl.int64)
    b, h = head // heads, head % heads
    i = tl.arange(0, DK_TILE)
    c = tl.program_id(1) * DV_TILE + tl.arange(0, DV_TILE)
    q_row = tl.load(q + b * q_strides[0] + h * q_strides[1] + i * q_strides[2], i < DK, other=0.0)
    k_row = tl.load(k + b * k_strides[0] + h * k_strides[1] + i * k_strides[2], i < DK, other=0.0)
    v_row = tl.load(v + b * v_strides[0] + h * v_strides[1] + c * v_strides[2], c < DV, other=0.0)
    at = state + b * state_strides[0] + h * state_strides[1]
    at += i[:, None] * state_strides[2] + c[None, :] * state_strides[3]
    inside = (i[:, None] < DK) & (c[None, :] < DV)
    s_tile = tl.load(at, inside, other=0.0)

    # S = λ S + kᵀ v
    s_tile *= decay_power(load_rate(rate, rate_strides, b, h), 1)
    s_tile += k_row.to(tl.float32)[:, None] * v_row.to(tl.float32)[None, :]
    tl.store(at, s_tile, inside)

    # o = q S
    o_row = tl.sum(q_row.to(tl.float32)[:, None] * s_tile, axis=0)
    o += b * o_strides[0] + h * o_strides[1]
    tl.store(o + c * o_strides[2], o_row.to(o.dtype.element_ty), c < DV)


@torch.library.custom_op("transnormer::decode_step", mutates_args=("state",))
def decode_op(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rate: torch.Tensor, state: torch.Tensor
) -> torch.Tensor:
    b, h, dk = q.shape
    dv = v.shape[-1]
    o = torch.empty_like(v)
    columns = min(COLUMNS, padded(dv))
    with torch.cuda.device_of(q):
        decode_kernel[(b * h, triton.cdiv(dv, columns))](
            q, k, v, rate, state, o, q.stride(), k.stride(), v.stride(),
            rate.expand(b, h).stride(), state.stride(), o.stride(), h,
            DK=dk, DV=dv, DK_TILE=padded(dk), DV_TILE=columns, num_warps=4,
        )  # fmt: skip
    return o


@decode_op.register_fake
def _(q, k, v, rate, state):
    return torch.empty_like(v)


def decode_step(q, k, v, rate, state):
    """One step of the recurrence; `state` is updated in place.

    Args: q, k (b, h, dk), v (b, h, dv), fp16, bf16 or fp32; rate (h,) or (b, h), natural log, ≥ 0;
    state (b, h, dk, dv), fp32. Returns o (b, h, dv). No gradients: it is for generation.
    Raises TypeError or ValueError for what does not fit, before any launch.
    """
    require(isinstance(q, torch.Tensor), TypeError, f"q is a {type(q).__name__}; pass a tensor.")
    require(
        q.ndim == 3 and q.numel() > 0, ValueError,
        f"q has shape {tuple(q.shape)}; (b, h, dk) with every size at least 1 was expected.",
    )  # fmt: skip
    b, h, dk = q.shape
    check_tensor("q", q, (b, h, dk), DTYPES, q.device)
    check_tensor("k", k, (b, h, dk), (q.dtype,), q.device)
    check_tensor("v", v, (b, h, None), (q.dtype,), q.device)
    for name, size in (("dk", dk), ("dv", v.shape[-1])):
        require(1 <= size <= 256, ValueError, f"{name} is {size}; the kernel serves 1 to 256.")
    check_rate(rate, b, h, q.device)
    check_tensor("state", state, (b, h, dk, v.shape[-1]), (torch.float32,), q.device)
    require(
        not torch.is_grad_enabled() or not any(x.requires_grad for x in (q, k, v, state)),
        ValueError,
        "decode_step has no gradient, but an input requires one; call it under torch.no_grad().",
    )  # fmt: skip
    check_launch(q)
    return torch.ops.transnormer.decode_step(q, k, v, rate, state)
