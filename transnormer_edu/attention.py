"""Causal attention: softmax, and linear attention with decay in its three forms.

    q, k   queries, keys        (b, h, n, dk)
    v      values               (b, h, n, dv)
    rate   decay rate r >= 0    (h,) or (b, h)     natural log per token, lambda = exp(-r)
    state  what is remembered   (b, h, dk, dv)     S = sum_s lambda^(n-1-s) k_s v_s^T
    o      output               (b, h, n, dv)

The three forms of linear attention are one function (arXiv 2307.14995):

    parallel    O = ((Q K^T) * M) V,  M_ts = lambda^(t-s) for s <= t, else 0     n^2 work
    recurrent   S_t = lambda S_{t-1} + k_t v_t^T,  o_t = q_t S_t                 n steps
    chunked     parallel inside a chunk, recurrent from chunk to chunk           the fast one
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.decay import check_rates, decay_mask

Rate = Float[Tensor, "h"] | Float[Tensor, "b h"]
State = Float[Tensor, "b h dk dv"]
Output = Float[Tensor, "b h n dv"]

# Fastest of 32, 64, 128 on 2 CPU cores, 8 heads of 64 (`transnormer-edu bench attention`).
CHUNK_SIZE = 64


def softmax_weights(
    q: Float[Tensor, "b h n dk"], k: Float[Tensor, "b h n dk"]
) -> Float[Tensor, "b h n n"]:
    """Attention map P_ts = softmax over s <= t of q_t k_s / sqrt(dk); every row sums to 1."""
    check_operands(q, k, k)
    wide = torch.promote_types(q.dtype, torch.float32)  # float16 ends at 65504
    score = q.to(wide) @ k.to(wide).transpose(-1, -2) / math.sqrt(q.shape[-1])
    future = torch.ones(score.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return score.masked_fill(future, -torch.inf).softmax(dim=-1).to(q.dtype)


def softmax_attention(
    q: Float[Tensor, "b h n dk"], k: Float[Tensor, "b h n dk"], v: Float[Tensor, "b h n dv"]
) -> Output:
    """o_t = sum_{s<=t} P_ts v_s with P = `softmax_weights(q, k)`: the map is written out."""
    check_operands(q, k, v)
    return softmax_weights(q, k) @ v


def linear_weights(
    q: Float[Tensor, "b h n dk"], k: Float[Tensor, "b h n dk"], rate: Rate
) -> Float[Tensor, "b h n n"]:
    """Map of linear attention A_ts = lambda^(t-s) q_t k_s for s <= t; rows do not sum to 1."""
    check_operands(q, k, k, rate)
    wide = torch.promote_types(q.dtype, torch.float32)
    score = q.to(wide) @ k.to(wide).transpose(-1, -2)
    return (score * decay_mask(rate.to(wide), q.shape[2])).to(q.dtype)


def linear_attention(
    q: Float[Tensor, "b h n dk"],
    k: Float[Tensor, "b h n dk"],
    v: Float[Tensor, "b h n dv"],
    rate: Rate,
    form: str = "chunked",
    *,
    state: State | None = None,
    return_state: bool = False,
    chunk_size: int = CHUNK_SIZE,
) -> Output | tuple[Output, State]:
    """o_t = sum_{s<=t} lambda^(t-s) (q_t k_s) v_s  +  lambda^(t+1) q_t S,  t = 0 .. n-1.

    S is the `state` left by the tokens before (none: zero). With `return_state` the state after
    the last token comes back too, in float32 or, for float64 inputs, float64. All arithmetic is
    done in that type, and o is cast back to the type of v. (Under torch.autocast products have its
    type, as everywhere.) No 1/sqrt(dk), no denominator.

    Raises ValueError or TypeError in one sentence for operands that do not fit or an unknown form.
    """
    check.tensors(rate=rate)
    check_operands(q, k, v, rate, state)
    check.one_of("form", form, FORMS)
    chunk_size = check.whole("chunk_size", chunk_size)
    wide = torch.promote_types(v.dtype, torch.float32)
    if state is None:
        state = v.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1], dtype=wide)
    o, state = FORMS[form](q, k, v, rate.to(wide), state.to(wide), chunk_size)
    return (o.to(v.dtype), state) if return_state else o.to(v.dtype)


def _parallel(q, k, v, rate, state, _):
    """O = ((Q K^T) * M) V + Lambda Q S: the whole map at once, which is one chunk of n tokens."""
    return _chunked(q, k, v, rate, state, q.shape[2])


def _recurrent(q, k, v, rate, state, _):
    """S_t = lambda S_{t-1} + k_t v_t^T;  o_t = q_t S_t, token after token."""
    keep = torch.exp(-rate)[..., None, None]
    outputs = []
    for q_t, k_t, v_t in _pieces(q, k, v, 1, state.dtype):
        state = keep * state + k_t.transpose(-1, -2) * v_t
        outputs.append(q_t @ state)
    return torch.cat(outputs, dim=2), state


def _chunked(q, k, v, rate, state, size):
    """The tokens that fill chunks of `size`, then those that are left as a shorter chunk."""
    size = min(size, q.shape[2])
    outputs = []
    for part in _pieces(q, k, v, q.shape[2] // size * size, state.dtype):
        o, state = _equal_chunks(*part, rate, state, min(size, part[0].shape[2]))
        outputs.append(o)
    return torch.cat(outputs, dim=2), state


def _equal_chunks(q, k, v, rate, state, m):
    """For each chunk: O = ((Q K^T) * M) V + Lambda Q S,  then  S = lambda^m S + K^T (fade V).

    Lambda_i = lambda^(i+1): what is left of S when row i reads it.
    fade_i = lambda^(m-1-i): what is left of row i at the end of its chunk of m rows.
    Every exponent is an age, so never positive: nothing overflows, whatever the rate.

    Only S goes from chunk to chunk; each product is one for all of them, (b, h, chunk, ., .).
    """
    # Here one copy each; else every product would make its own.
    q, k, v = (x.unflatten(2, (-1, m)).contiguous() for x in (q, k, v))
    mask = decay_mask(rate, m)[..., None, :, :]
    rate = rate[..., None, None, None]
    age = torch.arange(m, device=q.device, dtype=rate.dtype)[:, None]
    left, fade = torch.exp(-rate * (age + 1)), torch.exp(-rate * age.flip(0))
    states = []
    for new in (k.mT @ (fade * v)).unbind(2):
        states.append(state)
        state = left[..., 0, -1:, :] * state + new
    # In place: a gradient needs the two factors, never the product that is written over.
    near = (q @ k.mT).mul_(mask) @ v
    far = q @ torch.stack(states, dim=2)
    return torch.addcmul(near, far, left).flatten(2, 3), state


def _pieces(q, k, v, size, dtype):
    """Pieces of `size` tokens. Not slices: the gradient of each would fill a tensor of length n."""
    pieces = (x.split(size, dim=2) for x in (q, k, v))
    return ([x.to(dtype) for x in piece] for piece in zip(*pieces, strict=True))


FORMS = {"parallel": _parallel, "recurrent": _recurrent, "chunked": _chunked}


def check_operands(
    q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None = None, state: Tensor | None = None
) -> None:
    """Raise ValueError or TypeError, in one sentence, where operands do not fit each other."""
    optional = check.present(rate=rate, state=state)
    check.tensors(q=q, k=k, v=v)
    check.floating(**optional)
    check.one_device(q=q, k=k, v=v, **optional)
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ValueError(f"got {shapes}; expected four axes each: batch, head, token, feature")
    if q.shape != k.shape or q.shape[:3] != v.shape[:3]:
        raise ValueError(f"got {shapes}; expected q, k (b, h, n, dk) and v (b, h, n, dv)")
    if q.shape[2] == 0:
        raise ValueError(f"got {shapes}; expected at least one token (axis 2)")
    if not (q.is_floating_point() and q.dtype == k.dtype == v.dtype):
        raise TypeError(
            f"got q {q.dtype}, k {k.dtype}, v {v.dtype}; expected one floating type for all three"
        )
    if rate is not None:
        _check_rate_shape(rate, *q.shape[:2])
        check_rates(rate)
    if state is not None:
        expected = (*q.shape[:2], k.shape[-1], v.shape[-1])
        if tuple(state.shape) != expected:
            raise ValueError(
                f"got state {tuple(state.shape)}; expected (b, h, dk, dv) = {expected}"
            )


def _check_rate_shape(rate: Tensor, batch: int, heads: int) -> None:
    if tuple(rate.shape) not in {(heads,), (batch, heads)}:
        raise ValueError(
            f"got rate {tuple(rate.shape)}; expected (h,) = ({heads},) or (b, h) = "
            f"({batch}, {heads})"
        )
