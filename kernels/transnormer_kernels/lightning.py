"""Lightning Attention: the operator on PyTorch tensors, built from the kernels in scan.py."""

import threading

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from . import plan
from .checks import check_launch, check_operator
from .scan import backward_kernel, join_states_kernel, scan_kernel, segment_state_kernel


def lightning_attention(q, k, v, rate, state=None, return_state=False):
    """Causal linear attention with decay: o_t = Σ_{s≤t} exp(-rate (t-s)) (q_t·k_s) v_s.

    With a state S (what earlier tokens left behind) o_t gains exp(-rate (t+1)) q_t S, t = 0, 1, …
    The final state is S_n = exp(-rate n) S + Σ_s exp(-rate (n-1-s)) k_sᵀ v_s: handing it to the
    next call continues the sequence. Time O(n), memory O(1) beside the result (arXiv 2401.04658).

    Args:
        q, k: (b, h, n, dk), float16, bfloat16 or float32, any strides; dk from 16 to 256.
        v: (b, h, n, dv), of the same dtype; dv from 16 to 256.
        rate: (h,) or (b, h), natural-log decay rate per token, ≥ 0; it takes no gradient.
        state: (b, h, dk, dv), float32, or None for zeros.
        return_state: whether to return the final state as well.

    Returns:
        o (b, h, n, dv) in v's dtype and memory order, or (o, final state (b, h, dk, dv) float32).
        Differentiable in q, k, v and state. The same inputs give the same bits on the same GPU.

    In float16 the gradient of `state` loses digits where exp(-rate) < 6e-5, the smallest normal
    number of that type; bfloat16 and float32 do not.

    Under autocast q, k and v are brought to autocast's dtype, as its own operators do.

    Raises:
        TypeError, ValueError: what does not fit, with its numbers, before any launch.
        RuntimeError: tensors on a CPU while Triton does not run in its interpreter.
    """
    q, k, v = map(in_autocast, (q, k, v))
    check_operator(q, k, v, rate, state)
    check_launch(q)
    o, final_state, _ = torch.ops.transnormer.lightning_attention(
        q, k, v, rate, state, return_state
    )
    return (o, final_state) if return_state else o


# ------------------------------------------------------------------------------------- launches


def tma_ready(*tensors):
    """Whether the copy engine is there and can address these: 16-byte strides, unit last one."""
    if plan.capability(tensors[0].device) < 9 or tensors[0].dtype == torch.float32:
        return False
    for x in tensors:
        steps = [s * x.element_size() for s in x.stride()[:-1]]
        if x.stride(-1) != 1 or x.data_ptr() % 16 or any(s <= 0 or s % 16 for s in steps):
            return False
    return True


def in_autocast(x):
    """x as autocast's own operators take it: in its dtype, but for float64, which stays."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.dtype == torch.float64:
        return x
    kind = x.device.type
    # Named, not asked for by torch.amp.is_autocast_available: torch 2.11 cannot compile that.
    on = kind in ("cuda", "cpu") and torch.is_autocast_enabled(kind)
    return x.to(torch.get_autocast_dtype(kind)) if on else x


thread = threading.local()


def enter_cuda():
    """Makes CUDA's context current in this thread, as any call of its runtime does.

    PyTorch runs a backward in a thread of its own, and a descriptor is encoded by the driver, which
    expects a context: without this a thread's first descriptor fails with "invalid device context".
    """
    if not getattr(thread, "entered", False):
        torch.cuda.Event().record()
        thread.entered = True


def described(use_tma, rows, *pairs):
    """(tensor, columns) pairs as descriptors of (rows, columns) tiles, or the plain tensors."""
    if not use_tma:
        return [x for x, _ in pairs]
    if pairs[0][0].is_cuda:
        enter_cuda()
    return [TensorDescriptor(x, [*x.shape], [*x.stride()], [1, 1, rows, c]) for x, c in pairs]


def strides(x, dims):
    return x.stride() if x is not None else (0,) * dims


def launch_scan(q, k, v, o, rate, states, final_state, rows, reverse=False):
    """o = LA(q, k, v), or AL with `reverse`, in segments of `rows` rows from `states`."""
    b, h, n, dk = q.shape
    dv = v.shape[-1]
    tma = tma_ready(q, k, v, o)
    tiles = plan.scan_tiles(q.dtype, dk, dv, tma)
    wide, slim = plan.padded(dk), tiles.columns
    grid = (b * h * triton.cdiv(dv, tiles.columns), triton.cdiv(n, rows))
    scan_kernel[grid](
        *described(tma, tiles.chunk, (q, wide), (k, wide), (v, slim), (o, slim)),
        rate, states, final_state,
        q.stride(), k.stride(), v.stride(), o.stride(), rate.stride(),
        strides(states, 5), strides(final_state, 5), h, n, rows,
        DK=dk, DV=dv, DK_TILE=wide, DV_TILE=slim, CHUNK=tiles.chunk, REVERSE=reverse,
        HAS_STATE=states is not None, RETURN_STATE=final_state is not None, TMA=tma,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip


def launch_backward(q, k, v, do, dq, dk, dv, rate, states, grads, first_grad, rows):
    """All three gradients at once, from the states S and their gradients G at the borders."""
    b, h, n, width_k = q.shape
    width_v = v.shape[-1]
    tiles = plan.back_tiles(width_k, width_v)
    tensors = [(x, plan.padded(x.shape[-1])) for x in (q, k, v, do, dq)]
    backward_kernel[(b * h, triton.cdiv(n, rows), 2)](
        *described(True, tiles.chunk, *tensors), dk, dv, rate, states, grads, first_grad,
        q.stride(), k.stride(), v.stride(), do.stride(), dq.stride(), dk.stride(), dv.stride(),
        rate.stride(), strides(states, 5), strides(grads, 5), strides(first_grad, 5), h, n, rows,
        DK=width_k, DV=width_v, DK_TILE=plan.padded(width_k), DV_TILE=plan.padded(width_v),
        CHUNK=tiles.chunk, HAS_STATE=states is not None, HAS_GRAD=grads is not None,
        RETURN_GRAD=first_grad is not None, TMA=True,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip


def border_states(k, v, rate, initial, states, rows, reverse=False):
    """The state that enters each segment, written to `states` (b, h, segments, dk, dv).

    One segment needs no `states`: it starts from `initial`, or from zero (None). With `reverse`
    (given q and dO) the gradient G that enters each segment from its end.
    """
    b, h, n, dk = k.shape
    dv = v.shape[-1]
    segments = triton.cdiv(n, rows)
    if segments == 1:
        return None if initial is None else initial.unsqueeze(2)
    tma = tma_ready(k, v)
    tiles = plan.scan_tiles(k.dtype, dk, dv, tma)
    wide, slim = plan.padded(dk), tiles.columns
    segment_state_kernel[(b * h * triton.cdiv(dv, slim), segments - 1)](
        *described(tma, tiles.chunk, (k, wide), (v, slim)), states, rate,
        k.stride(), v.stride(), rate.stride(), states.stride(), h, n, rows,
        DK=dk, DV=dv, DK_TILE=wide, DV_TILE=slim, CHUNK=tiles.chunk, REVERSE=reverse, TMA=tma,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    padded = triton.next_power_of_2(segments)
    cells = max(16, plan.JOIN_CELLS // padded)
    join_states_kernel[(b * h, triton.cdiv(dk * dv, cells))](
        states, initial, rate, states.stride(), strides(initial, 4), rate.stride(),
        h, n, rows, segments,
        DK=dk, DV=dv, SEGMENTS=padded, TILE=cells, REVERSE=reverse,
        HAS_STATE=initial is not None, num_warps=4,
    )  # fmt: skip
    return states


# ------------------------------------------------------------------- registration with PyTorch


@torch.library.custom_op("transnormer::lightning_attention", mutates_args=())
def forward_op(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rate: torch.Tensor,
    state: torch.Tensor | None, return_state: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """o, the final state and the segments' states for the backward; empty where there is none."""
    b, h, n, _ = q.shape
    rate = rate.expand(b, h)
    o, final_state, borders = forward_fake(q, k, v, rate, state, return_state)
    rows = plan.segment_rows(b * h, n, q.device)
    with torch.cuda.device_of(q):
        states = border_states(k, v, rate, state, borders, rows)
        final = final_state.unsqueeze(2) if return_state else None
        launch_scan(q, k, v, o, rate, states, final, rows)
    return o, final_state, borders


@forward_op.register_fake
def forward_fake(q, k, v, rate, state, return_state):
    (b, h, n, dk), dv = q.shape, v.shape[-1]
    segments = -(-n // plan.segment_rows(b * h, n, q.device))
    f32 = {"dtype": torch.float32, "device": q.device}
    final_state = torch.empty((b, h, dk, dv) if return_state else (0,), **f32)
    borders = torch.empty((b, h, segments, dk, dv) if segments > 1 else (0,), **f32)
    return torch.empty_like(v), final_state, borders


@torch.library.custom_op("transnormer::lightning_attention_backward", mutates_args=())
def backward_op(
    do: torch.Tensor, dfinal: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor,
    v: torch.Tensor, rate: torch.Tensor, state: torch.Tensor | None, borders: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """dQ = LA(dO, V, K), dK = AL(V, dO, Q), dV = AL(K, Q, dO), and the initial state's gradient."""
    b, h, n, _ = q.shape
    rate = rate.expand(b, h)
    dq, dk, dv, dstate = backward_fake(do, dfinal, q, k, v, rate, state, borders)
    rows = plan.segment_rows(b * h, n, q.device)
    with torch.cuda.device_of(q):
        states = None if state is None else state.unsqueeze(2)
        states = borders if borders.numel() else states
        states = None if states is None else states.mT
        grads = torch.empty_like(borders)
        grads = border_states(q, do, rate, dfinal, grads, rows, reverse=True)
        first = None if state is None else dstate.unsqueeze(2)
        tma, major = tma_ready(q, k, v, do, dq), plan.capability(q.device)
        if plan.fused_back(q.dtype, q.shape[-1], v.shape[-1], tma, major):
            launch_backward(q, k, v, do, dq, dk, dv, rate, states, grads, first, rows)
        else:
            grads_t = None if grads is None else grads.mT
            launch_scan(do, v, k, dq, rate, states, None, rows)
            launch_scan(v, do, q, dk, rate, grads_t, None, rows, reverse=True)
            launch_scan(k, q, do, dv, rate, grads, first, rows, reverse=True)
    return dq, dk, dv, dstate


@backward_op.register_fake
def backward_fake(do, dfinal, q, k, v, rate, state, borders):
    shape = (0,) if state is None else state.shape
    dstate = torch.empty(shape, dtype=torch.float32, device=q.device)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), dstate


def save_inputs(ctx, inputs, output):
    q, k, v, rate, state, ctx.return_state = inputs
    ctx.save_for_backward(q, k, v, rate, state, output[2])
    ctx.set_materialize_grads(False)


def differentiate(ctx, do, dfinal, _):
    q, k, v, rate, state, borders = ctx.saved_tensors
    if do is None:  # only the final state was used
        do = torch.zeros_like(v)
    dfinal = dfinal if ctx.return_state else None
    dq, dk, dv, dstate = torch.ops.transnormer.lightning_attention_backward(
        do, dfinal, q, k, v, rate, state, borders
    )
    return dq, dk, dv, None, None if state is None else dstate, None


forward_op.register_autograd(differentiate, setup_context=save_inputs)
