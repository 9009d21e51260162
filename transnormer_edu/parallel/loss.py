"""The loss where each process has some of the words.

    loss = log sum_j exp(z_j) - z_label,    z = x E^T,    z_j only for the own words j

Per token three numbers are agreed on: the largest z (so that nothing overflows), the sum of the
exponentials, and z at the label, which one of the processes has. No process holds all logits.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from transnormer_edu.cross_entropy import IGNORED_LABEL, PIECE, add_product, autocast_type


def split_cross_entropy(
    x: Float[Tensor, "n d"],
    words: Float[Tensor, "own d"],
    labels: Int[Tensor, "n"],
    count: Int[Tensor, ""],
    first: int,
    group,
) -> Float[Tensor, ""]:
    """Sum of -log softmax(x E^T)[label] over the labels that are not -100, divided by `count`.

    words: the rows first, first + 1, ... of E. x and labels are the same in all of the group.
    """
    return _OwnWords.apply(x, words, labels, count, first, group)


class _OwnWords(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, words, labels, count, first, group):
        narrow = autocast_type(x)
        wide = torch.promote_types(narrow, torch.float32)
        rows, own = x.to(narrow), words.to(narrow)
        size = max(1, PIECE.get(x.device.type, PIECE["cuda"]) // max(1, len(own)))
        total, dx, d_words = 0, [], torch.zeros_like(own, dtype=wide)
        for piece, asked in zip(rows.split(size), labels.split(size), strict=True):
            loss, dz = _loss_and_gradient_((piece @ own.T).to(wide), asked, first, group)
            total = total + loss.sum()
            dz = dz.to(narrow)
            dx.append(dz @ own)
            d_words = add_product(d_words, dz.T, piece)
        dx = torch.cat(dx).to(wide)
        dist.all_reduce(dx, group=group)
        ctx.save_for_backward(dx, d_words, count)
        ctx.dtypes = x.dtype, words.dtype
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        dx, d_words, count = ctx.saved_tensors
        share = grad / count
        types = ctx.dtypes
        return (dx * share).to(types[0]), (d_words * share).to(types[1]), None, None, None, None


def _loss_and_gradient_(z, labels, first, group):
    """Each token's loss, and the gradient of their sum in the own logits z (n, own): z anew."""
    top = z.amax(dim=-1) if z.shape[1] else z.new_full(z.shape[:1], -torch.inf)
    dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
    place = labels - first
    mine = (place >= 0) & (place < z.shape[1])
    at = place.clamp(0, max(0, z.shape[1] - 1))[:, None]
    z.sub_(top[:, None])
    asked = z.gather(1, at)[:, 0].masked_fill(~mine, 0) if z.shape[1] else torch.zeros_like(top)
    power = z.exp_()
    both = torch.stack([power.sum(-1), asked])
    dist.all_reduce(both, group=group)
    sums, asked = both
    left_out = labels == IGNORED_LABEL
    loss = (sums.log() - asked).masked_fill(left_out, 0)
    dz = power.div_(sums[:, None])
    if z.shape[1]:
        dz.scatter_add_(1, at, -mine[:, None].to(dz.dtype))
    return loss, dz.masked_fill_(left_out[:, None], 0)
