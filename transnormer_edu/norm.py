"""SRMSNorm, the norm of TransNormerLLM, and the two it is compared with.

    SRMSNorm    y = x * rho,   rho = 1 / sqrt(mean(x^2) + eps)       nothing to learn
    RMSNorm     y = SRMSNorm(x) * gamma                              a learned weight
    LayerNorm   y = SRMSNorm(x - mean(x)) * gamma + beta             centred, weight and bias

(arXiv 2307.14995.) The last two are PyTorch's own.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transnormer_edu import check

EPS = 1e-6


def srmsnorm(x: Float[Tensor, "*rows d"], eps: float = EPS) -> Float[Tensor, "*rows d"]:
    """y = x / sqrt(mean(x^2) + eps) over the last axis: rows of mean square 1.

    Computed in float32, or wider where x is, and cast back. Its gradient, with the output y:
    dx = rho (dy - y * mean(y * dy)): the part of dy that would only change a row's length is cut.
    """
    check.floating(x=x)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class SRMSNorm(nn.Module):
    """`srmsnorm` as a module; it takes the width like other norms, and needs no parameters."""

    def __init__(self, dim: int, eps: float = EPS):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return srmsnorm(x, self.eps)


NORMS = {
    "simplermsnorm": SRMSNorm,
    "rmsnorm": partial(nn.RMSNorm, eps=EPS),
    "layernorm": partial(nn.LayerNorm, eps=EPS),
}
