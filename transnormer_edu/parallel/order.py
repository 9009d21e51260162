"""Two orders of the rows of the fused projection of q, k, v and u.

    released    q of all heads, k of all heads, v ..., u ...       rows (part head feature)
    by heads    q, k, v, u of the first head, then of the next     rows (head part feature)

A process that has some of the heads needs their rows of q, k, v and u. In the released order those
stand in four places; by heads they are one run of rows, whatever the number of processes. So the
engine keeps this one projection by heads, and reads and writes the released order at its border.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

QKVU = "token_mixer.qkvu_proj.weight"


def rows_by_heads(weight: Float[Tensor, "rows d"], parts: int, heads: int):
    """Released order -> by heads; parts: 4 with a full gate, else 3."""
    return rearrange(weight, "(p h e) d -> (h p e) d", p=parts, h=heads)


def rows_as_released(weight: Float[Tensor, "rows d"], parts: int, heads: int):
    """Inverse of `rows_by_heads`."""
    return rearrange(weight, "(h p e) d -> (p h e) d", p=parts, h=heads)


def features_as_released(x: Float[Tensor, "b n rows"], parts: int, heads: int):
    """The projection's output by heads, as `GLA.project` expects it."""
    return rearrange(x, "b n (h p e) -> b n (p h e)", p=parts, h=heads)


class ProjectionByHeads(torch.autograd.Function):
    """y = x W^T in the released order, for a W by heads.

    The weight in the released order is made twice rather than kept: FSDP lets go of W after the
    forward, and a copy of it would stay.
    """

    @staticmethod
    def forward(ctx, x, weight, parts, heads):
        ctx.save_for_backward(x, weight)
        ctx.order = parts, heads
        return x @ rows_as_released(weight, parts, heads).mT

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2).mT @ x.flatten(0, -2)
        return (
            grad @ rows_as_released(weight, *ctx.order), rows_by_heads(rows, *ctx.order), None, None
        )  # fmt: skip


def weights_by_heads(tensors: dict[str, Tensor], config) -> dict[str, Tensor]:
    """All weights of a model in the released order -> as the engine keeps them."""
    return _reordered(tensors, config, rows_by_heads)


def weights_as_released(tensors: dict[str, Tensor], config) -> dict[str, Tensor]:
    """Inverse of `weights_by_heads`."""
    return _reordered(tensors, config, rows_as_released)


def parts_of(config) -> int:
    """What the fused projection makes: q, k, v, and u where the gate is full."""
    return 4 if config.gate == "full" else 3


def _reordered(tensors, config, order):
    return {
        name: order(x, parts_of(config), config.heads) if name.endswith(QKVU) else x
        for name, x in tensors.items()
    }
