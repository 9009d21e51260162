"""SRMSNorm, the norm of TransNormerLLM, and the two it is compared with.

    SRMSNorm    y = x * rho,   rho = 1 / sqrt(mean(x^2) + eps)       nothing to learn
    RMSNorm     y = SRMSNorm(x) * gamma                              a learned weight
    LayerNorm   y = SRMSNorm(x - mean(x)) * gamma + beta             centred, weight and bias

(arXiv 2307.14995.) The last two are PyTorch's own, with the eps that the released models' code has
for them: 1e-6, and for LayerNorm 1e-5.
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
    return _with_rho(x, eps)[0]


def _with_rho(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    rho = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * rho).to(x.dtype), rho


class _KeepsResult(torch.autograd.Function):
    """`srmsnorm` for the compiler: the gradient as it stands above needs y and rho, but not x.

    y is kept anyway, for the product that follows; x, the residual stream, then need not be: two
    tensors less for each block while training.
    """

    @staticmethod
    def forward(ctx, x, eps):
        y, rho = _with_rho(x, eps)
        ctx.save_for_backward(y, rho)
        return y

    @staticmethod
    def backward(ctx, dy):
        y, rho = ctx.saved_tensors
        y, wide = y.to(rho.dtype), dy.to(rho.dtype)
        return (rho * (wide - y * (y * wide).mean(-1, keepdim=True))).to(dy.dtype), None


class SRMSNorm(nn.Module):
    """`srmsnorm` as a module; it takes the width like other norms, and needs no parameters."""

    def __init__(self, dim: int, eps: float = EPS):
        super().__init__()
        check.whole("dim", dim)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and torch.is_grad_enabled():
            return _KeepsResult.apply(x, self.eps)
        return srmsnorm(x, self.eps)


NORMS = {
    "simplermsnorm": SRMSNorm,
    "rmsnorm": partial(nn.RMSNorm, eps=EPS),
    "layernorm": nn.LayerNorm,
}
