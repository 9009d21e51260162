"""The operator by its definition, token by token, in float64: independent of the kernels."""

import torch


def recurrence(q, k, v, rate, state=None):
    """o_t = q_t S_t with S_t = exp(-rate) S_{t-1} + k_tᵀ v_t; returns o and the final state."""
    q, k, v = q.double(), k.double(), v.double()
    b, h, n, dk = q.shape
    decay = torch.exp(-rate.double()).expand(b, h)[:, :, None, None]
    state = q.new_zeros(b, h, dk, v.shape[-1]) if state is None else state.double()
    o = []
    for t in range(n):
        state = decay * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        o.append((q[:, :, t, None, :] @ state)[:, :, 0])
    return torch.stack(o, dim=2), state


def left_product(q, k, v, rate):
    """The same output as ((Q Kᵀ) ⊙ M) V, for lengths at which a loop is too slow."""
    q, k, v = q.double(), k.double(), v.double()
    i = torch.arange(q.shape[2], device=q.device)
    gap = i[:, None] - i[None, :]
    rate = rate.double().expand(q.shape[:2])[:, :, None, None]
    m = torch.where(gap >= 0, torch.exp(-rate * gap.clamp(min=0)), 0.0)
    return ((q @ k.mT) * m) @ v


def wide(*tensors):
    """Float64 copies as leaves: a gradient taken through the narrow ones would be rounded too."""
    return [x.detach().double().requires_grad_() for x in tensors]


def error(x, ref):
    """‖x - ref‖ / ‖ref‖, the larger of: the whole tensor, its worst (batch, head)."""
    ref = ref.detach()
    gap = x.detach().double() - ref
    whole = gap.norm() / ref.norm()
    if ref.ndim < 4:
        return whole.item()
    heads = gap.flatten(2).norm(dim=2) / ref.flatten(2).norm(dim=2)
    return max(whole.item(), heads.max().item())
