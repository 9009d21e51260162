"""One token: update the state and read it, in one launch (arXiv 2307.14995).

    S = λ S + kᵀ v        in place, fp32
    o = q S

where a layer with LRPE first turns q and k: q = [q cos(θ t), q sin(θ t)], t the token's position.
This is the robust recurrence: it keeps S itself, never λ^(-t) S, which overflows.
"""

import torch
import triton
import triton.language as tl

from .checks import DTYPES, check_launch, check_rate, check_tensor, require
from .plan import early_launch, padded
from .scan import decay_power, load_rate

COLUMNS = 32  # of the state per program: enough programs to fill a GPU from a single sequence


@triton.jit
def decode_kernel(
    q, k, v, rate, state, o, theta, position,
    q_strides, k_strides, v_strides, rate_strides, state_strides, o_strides, heads,
    FEATURES: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    DK_TILE: tl.constexpr, DV_TILE: tl.constexpr, LRPE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One head, DV_TILE columns of its state. q and k come with FEATURES features: DK, or with
    LRPE half of that. EARLY: see `early_launch`."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    head = tl.program_id(0).to(tl.int64)
    b, h = head // heads, head % heads
    i = tl.arange(0, DK_TILE)
    c = tl.program_id(1) * DV_TILE + tl.arange(0, DV_TILE)
    at = state + b * state_strides[0] + h * state_strides[1]
    at += i[:, None] * state_strides[2] + c[None, :] * state_strides[3]
    inside = (i[:, None] < DK) & (c[None, :] < DV)
    s_tile = tl.load(at, inside, other=0.0)
    if EARLY:
        tl.extra.cuda.gdc_wait()  # for q, k, v
    j = i % FEATURES
    q_row = tl.load(q + b * q_strides[0] + h * q_strides[1] + j * q_strides[2], i < DK, other=0.0)
    k_row = tl.load(k + b * k_strides[0] + h * k_strides[1] + j * k_strides[2], i < DK, other=0.0)
    q_row, k_row = q_row.to(tl.float32), k_row.to(tl.float32)

    # q = [q cos(θ t), q sin(θ t)], and k
    if LRPE:
        angle = tl.load(theta + h * FEATURES + j).to(tl.float32) * tl.load(position + b)
        turn = tl.where(i < FEATURES, tl.cos(angle), tl.sin(angle))
        q_row, k_row = q_row * turn, k_row * turn

    # S = λ S + kᵀ v; v is asked for as late as this, or a register is missing above
    s_tile *= decay_power(load_rate(rate, rate_strides, b, h), 1)
    v_row = tl.load(v + b * v_strides[0] + h * v_strides[1] + c * v_strides[2], c < DV, other=0.0)
    s_tile += k_row[:, None] * v_row.to(tl.float32)[None, :]
    tl.store(at, s_tile, inside)

    # o = q S
    o_row = tl.sum(q_row[:, None] * s_tile, axis=0)
    o += b * o_strides[0] + h * o_strides[1]
    tl.store(o + c * o_strides[2], o_row.to(o.dtype.element_ty), c < DV)


@torch.library.custom_op("transnormer::decode_step", mutates_args=("state",))
def decode_op(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rate: torch.Tensor, state: torch.Tensor,
    theta: torch.Tensor | None = None, position: torch.Tensor | None = None, early: bool = False,
) -> torch.Tensor:  # fmt: skip
    b, h, features = q.shape
    dk, dv = state.shape[2:]
    o = torch.empty_like(v)
    columns = min(COLUMNS, padded(dv))
    with torch.cuda.device_of(q):
        decode_kernel[(b * h, triton.cdiv(dv, columns))](
            q, k, v, rate, state, o, theta, position, q.stride(), k.stride(), v.stride(),
            rate.expand(b, h).stride(), state.stride(), o.stride(), h,
            FEATURES=features, DK=dk, DV=dv, DK_TILE=padded(dk), DV_TILE=columns,
            LRPE=theta is not None, num_warps=4, **early_launch(q.device, early),
        )  # fmt: skip
    return o


@decode_op.register_fake
def _(q, k, v, rate, state, theta=None, position=None, early=False):
    return torch.empty_like(v)


def decode_step(q, k, v, rate, state, *, theta=None, position=None, early=False):
    """One step of the recurrence; `state` is updated in place.

    Args: q, k (b, h, dk), v (b, h, dv), fp16, bf16 or fp32; rate (h,) or (b, h), natural log, ≥ 0;
    state (b, h, dk, dv), fp32. For LRPE: theta (h, 1, dk), floating, the angles per token, and
    position (b,), int64, of this token in its text; the state is then (b, h, 2 dk, dv).
    early: see `projection`; the state is what may be read while earlier kernels still run.
    Returns o (b, h, dv). No gradients: it is for generation.
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
    require(
        (theta is None) == (position is None), ValueError,
        "theta and position belong together: LRPE turns q and k by theta times position.",
    )  # fmt: skip
    if theta is not None:
        check_tensor("theta", theta, (h, 1, dk), DTYPES, q.device)
        check_tensor("position", position, (b,), (torch.int64,), q.device)
        theta, position, dk = theta.contiguous(), position.contiguous(), 2 * dk
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
    return torch.ops.transnormer.decode_step(q, k, v, rate, state, theta, position, early)
