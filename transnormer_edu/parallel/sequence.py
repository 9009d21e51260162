"""Sequence parallel: each process has a stretch of every text (LASP, arXiv 2404.02882).

Linear attention is linear in its state, so what came before is added apart:

    o_t = (the own stretch alone)_t + lambda^(t+1) q_t S_in          t = 0 .. m-1 in the stretch

The state travels while the first term, by far the larger work, is computed; backwards likewise the
gradient of the state while that of the first term is. Three steps make that of autograd, which goes
backwards in the opposite order, from the newest step to the oldest:

    start     forward: the message is on its way          backward: wait for it, use it
    own       o of the own stretch                        its gradients
    finish    forward: wait for it, use it                backward: the message is on its way
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transnormer_edu import check
from transnormer_edu.lightning import lightning_attention
from transnormer_edu.parallel.exchange import EXCHANGES

STRETCH = 1024  # tokens at a time where a state is summed up: bounds the memory of it


def sequence_attention(
    q: Float[Tensor, "b h m dk"],
    k: Float[Tensor, "b h m dk"],
    v: Float[Tensor, "b h m dv"],
    rate: Float[Tensor, "h"],
    group,
    exchange: str = "ring",
) -> Float[Tensor, "b h m dv"]:
    """`lightning_attention` of a text whose stretch number r is given to process r of the group.

    m is the same in all of them. exchange: "ring" or "gather", see exchange.py.
    """
    check.one_of("exchange", exchange, EXCHANGES)
    wide = torch.promote_types(v.dtype, torch.float32)
    keep = torch.exp(-rate.to(wide) * q.shape[2])[:, None, None]
    make = partial(EXCHANGES[exchange], group, keep)
    message = _Message(make)
    own_state = _Start.apply(_again(state_after, k, v, rate), message)
    o = lightning_attention(q, k, v, rate)
    state = _Finish.apply(own_state, message)
    return o + _again(read, q, state, rate).to(o.dtype)


def state_after(k: Tensor, v: Tensor, rate: Tensor) -> Float[Tensor, "b h dk dv"]:
    """S = sum_s lambda^(m-1-s) k_s v_s^T, in float32 or wider, also under autocast."""
    wide = torch.promote_types(v.dtype, torch.float32)
    state = 0
    with _exact(v):
        for k_c, v_c in zip(k.split(STRETCH, dim=2), v.split(STRETCH, dim=2), strict=True):
            m = k_c.shape[2]
            fade = _left(rate.to(wide), m, since=0).flip(1)
            keep = torch.exp(-rate.to(wide) * m)[:, None, None]
            state = keep * state + k_c.to(wide).mT @ (fade[..., None] * v_c.to(wide))
    return state


def read(q: Tensor, state: Tensor, rate: Tensor) -> Float[Tensor, "b h m dv"]:
    """lambda^(t+1) q_t S, in the state's type."""
    with _exact(q):
        return (_left(rate.to(state.dtype), q.shape[2])[..., None] * q.to(state.dtype)) @ state


def _again(function, *given) -> Tensor:
    """Computed once more in the backward: q, k, v are kept anyway, their copies in float32 not."""
    return checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)


def _exact(x: Tensor) -> torch.autocast:
    """Autocast would round what a product is given, whatever type that was brought to."""
    return torch.autocast(x.device.type, enabled=False)


def divide_sequence(model: nn.Module, group, exchange: str = "ring") -> None:
    """Let every GLA of the model ask the processes of `group` for what came before."""
    for block in model.model["layers"]:
        gla = block.token_mixer
        gla._attend = partial(_attend, gla, group, exchange)


def _attend(gla, group, exchange, q, k, v, real, state, return_state):
    if real is not None or state is not None or return_state:
        raise ValueError("sequence parallel is for training: no padding, no state in or out")
    return sequence_attention(q, k, v, gla.rate.to(q.device), group, exchange), None


def _left(rate, m, since=1):
    """lambda^(t + since), t = 0 .. m-1: (h, m). Ages are never negative: nothing overflows."""
    age = torch.arange(since, since + m, device=rate.device, dtype=rate.dtype)
    return torch.exp(-rate[:, None] * age)


class _Message:
    """One message each way, between the two steps that share it."""

    def __init__(self, make):
        self.forward, self.backward = make(), make(reverse=True)


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own, message):
        ctx.message = message
        message.forward.start(own)
        return own.view_as(own)

    @staticmethod
    def backward(ctx, grad):
        return ctx.message.backward.finish(grad), None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own, message):
        ctx.message = message
        return message.forward.finish(own)

    @staticmethod
    def backward(ctx, grad):
        ctx.message.backward.start(grad.contiguous())
        return grad, None
