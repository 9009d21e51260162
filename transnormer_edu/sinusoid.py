"""Positions as sinusoids: a ladder of angles, and the vector of 2017 that is added to the input.

    angle_j(t) = t * 10000^(-2 j / d)                      j = 0 .. d/2 - 1
    x_t + [sin angle(t), cos angle(t)]                     (arXiv 1706.03762)

The same ladder turns the pairs of features in `transformer.rope`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sinusoid_angles(position: Tensor, features: int, dtype: torch.dtype) -> Tensor:
    """angle_j = position * 10000^(-2 j / features) for j = 0 .. features/2 - 1.

    For features of this dtype: in float64 for float64, else in float32.
    """
    wide = torch.promote_types(dtype, torch.float32)
    j = torch.arange(0, features, 2, device=position.device, dtype=wide)
    return position[..., None] * 10000 ** (-j / features)


def add_sinusoid(
    x: Float[Tensor, "b n d"], position: Int[Tensor, "n"] | Int[Tensor, "b n"]
) -> Float[Tensor, "b n d"]:
    """x_t + [sin angle(t), cos angle(t)] for tokens at these positions; d must be even."""
    angle = sinusoid_angles(position, x.shape[-1], x.dtype)
    return x + torch.cat([angle.sin(), angle.cos()], dim=-1).to(x.dtype)
