"""The loss of a language model, without ever holding all of its logits.

    loss = mean over t of  log sum_j exp(z_tj) - z_t,label        z = x E^T
    dz   = (softmax(z) - onehot(label)) / count
    dx   = dz E,   dE = dz^T x

For 65,536 tokens and 64,000 words z would be 8 GB, its gradient as much again, both in float32 even
more. But each row's gradient needs that row alone: so the rows come piece by piece, and a piece's
logits are turned into their gradient where they lie, used for dx and dE, and forgotten. All of that
happens in the forward pass; the backward only multiplies.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from transnormer_edu.lightning import loss_and_gradient_

IGNORED_LABEL = -100
AUTOCAST = ("cpu", "cuda", "mps", "xpu")  # asking PyTorch for them is what 2.11 cannot compile
PIECE = {"cpu": 2**20, "cuda": 2**29}  # logits at a time: in a CPU's cache; enough to fill a GPU


def cross_entropy(
    x: Float[Tensor, "n d"],
    embedding: Float[Tensor, "V d"],
    labels: Int[Tensor, "n"],
    count: Int[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean of -log softmax(x E^T)[label] over the labels that are not -100, nats; NaN for none.

    count: what the sum is divided by, where other processes hold more of the labels.

    x and E are used in autocast's type where it is on, else in their own; the sum over the words is
    float32 or wider, and so is the gradient of E while it is added up.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or embedding.requires_grad)
    return _PieceByPiece.apply(x, embedding, labels, wanted, count)


def autocast_type(x: Tensor) -> torch.dtype:
    """The type that a product with x is computed in: autocast's where it is on, else x's own."""
    device = x.device.type
    on = device in AUTOCAST and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else x.dtype


class _PieceByPiece(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, embedding, labels, wanted, count):
        narrow = autocast_type(x)
        wide = torch.promote_types(narrow, torch.float32)
        rows, words = x.to(narrow), embedding.to(narrow)
        size = max(1, PIECE.get(x.device.type, PIECE["cuda"]) // len(words))
        total = torch.zeros((), dtype=wide, device=x.device)
        dx, d_words = [], torch.zeros_like(words, dtype=wide) if wanted else None
        for piece, asked in zip(rows.split(size), labels.split(size), strict=True):
            z = piece @ words.T
            total = total + loss_and_gradient_(z, asked, IGNORED_LABEL).sum()
            if wanted:
                dx.append(z @ words)
                d_words = add_product(d_words, z.T, piece)
        count = (labels != IGNORED_LABEL).sum() if count is None else count
        if wanted:
            ctx.save_for_backward(torch.cat(dx), d_words, count)
        ctx.dtypes = x.dtype, embedding.dtype
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        dx, d_words, count = ctx.saved_tensors
        share = grad / count
        dx, d_words = (dx * share).to(ctx.dtypes[0]), (d_words * share).to(ctx.dtypes[1])
        return dx, d_words, None, None, None


def add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """total + a b, added up in total's type, although a and b may be narrower."""
    if a.dtype != total.dtype and total.is_cuda:
        return torch.addmm(total, a, b, out_dtype=total.dtype)
    return total.addmm_(a.to(total.dtype), b.to(total.dtype))  # in place: autocast lets it be
