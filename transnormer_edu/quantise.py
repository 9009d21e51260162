"""Make the matrices of a model small: round them to 16 levels, badly or well.

Rounding each weight to its nearest level forgets what the weights are for. GPTQ (Frantar et al.,
arXiv 2210.17323) asks what a layer's outputs lose: with inputs X of a calibration text,

    || W X - Q X ||^2 = sum over outputs of  e H e^T,     e = w - q,   H = X X^T   (in, in)

It rounds one input's weights after the other and lets those that are still to come make up for the
error: with U the upper Cholesky factor of H^-1,

    w[j] = w[j] - (w[i] - q[i]) U[i, j] / U[i, i]         for all j > i

Without a text H is the identity, nothing is made up for, and this is rounding to the nearest.
"""

import copy
from dataclasses import replace as with_changes

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from transnormer_edu import check
from transnormer_edu.gptq import GPTQFormat, QuantLinear, replace
from transnormer_edu.model import TransNormerLLM

DAMPING = 0.01  # of the mean of H's diagonal, added to it: inputs that hardly ever occur


@torch.no_grad()
def quantise(
    model: TransNormerLLM,
    form: GPTQFormat | None = None,
    calibration: Integer[Tensor, "b n"] | None = None,
) -> TransNormerLLM:
    """A copy of `model` with all matrices of its blocks in few bits; the embedding stays.

    form           by default 4 bits, groups of 128 inputs
    calibration    ids of a text that is like what the model will read: GPTQ; None: each weight
                   goes to its nearest level

    A block is given what the blocks before it, already quantised, make of the text. Errors:
    TypeError for another kind of model; ValueError for sizes that do not fill int32 numbers, a
    model that is quantised already, or ids that do not fit.
    """
    check.kind("model", model, TransNormerLLM)
    form = GPTQFormat() if form is None else form
    check.kind("form", form, GPTQFormat)
    if model.config.quantization is not None:
        raise ValueError(f"the model is quantised already: {model.config.quantization}")
    model, x, position = copy.deepcopy(model), None, None
    if calibration is not None:
        model.check_input(calibration)
        position = torch.arange(calibration.shape[1], device=calibration.device)
        x = model.embed(calibration.long(), position)
    for block in model.model["layers"]:
        seen = {} if x is None else hessians(block, x, position)
        for name, linear in _matrices(block):
            replace(block, name, quantised(linear.weight, form, seen.get(name)))
        x = None if x is None else block(x, position)[0]
    model.config = with_changes(model.config, quantization=form)
    return model


def quantised(
    weight: Float[Tensor, "o i"], form: GPTQFormat, hessian: Float[Tensor, "i i"] | None = None
) -> QuantLinear:
    """The layer that stands for `weight`; `hessian` is H, or None for rounding to the nearest."""
    left = weight.double().clone()
    order, spread = _order_and_spread(left, form, hessian)
    left = left[:, order]
    count, size = left.shape[1], form.group_size if form.group_size != -1 else left.shape[1]
    levels = torch.empty_like(left, dtype=torch.int32)
    scales, zeros = [], []
    for i in range(count):
        if i % size == 0:
            scale, zero = grid(left[:, i : i + size], form.bits)
            scales.append(scale)
            zeros.append(zero)
        level = (left[:, i] / scale).round().add(zero).clamp(0, 2**form.bits - 1)
        if spread is not None:
            error = (left[:, i] - scale * (level - zero)) / spread[i, i]
            left[:, i + 1 :] -= error[:, None] * spread[i, i + 1 :]
        levels[:, i] = level.int()
    group = torch.empty(count, dtype=torch.int32, device=weight.device)
    group[order] = torch.arange(count, device=weight.device, dtype=torch.int32) // size
    undone = order.argsort()
    found = (torch.stack(scales, 1).half(), torch.stack(zeros, 1).int())
    return QuantLinear.of(levels[:, undone], *found, group, form)


def grid(group: Float[Tensor, "o i"], bits: int) -> tuple[Float[Tensor, "o"], Float[Tensor, "o"]]:
    """Scale and zero so that the levels 0 .. 2^bits - 1 reach from the least weight to the largest.

    The zero is at least 1: readers of the format disagree about 0. The scale is one of float16.
    """
    top = 2**bits - 1
    low, high = group.amin(1).clamp(max=0), group.amax(1).clamp(min=0)
    scale = (high - low) / top
    scale = torch.where(-low < scale / 2, high / (top - 1), scale)  # its zero would be 0
    scale = scale.clamp(min=6.2e-5).half().double()  # above float16's smallest normal number
    return scale, (-low / scale).round().clamp(1, top)


def hessians(
    block: nn.Module, x: Float[Tensor, "b n d"], position: Int[Tensor, "n"]
) -> dict[str, Float[Tensor, "i i"]]:
    """H = X^T X for each matrix of `block`, X its inputs while the block reads x."""
    found: dict[str, Tensor] = {}

    def listener(name):
        def listen(_, given):
            rows = given[0].flatten(0, -2).double()
            found[name] = found.get(name, 0) + rows.T @ rows

        return listen

    hooks = [m.register_forward_pre_hook(listener(name)) for name, m in _matrices(block)]
    try:
        for piece in x.split(8):
            block(piece, position)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _matrices(block: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in block.named_modules() if isinstance(m, nn.Linear)]


def _order_and_spread(left, form, hessian) -> tuple[Int[Tensor, "i"], Tensor | None]:
    """In which order inputs are rounded, and U, by which errors spread to those that follow.

    With desc_act what matters most comes first, while many are left to make up for its error.
    """
    order = torch.arange(left.shape[1], device=left.device)
    if hessian is None:
        return order, None
    h = hessian.double().clone()
    never = h.diagonal() == 0
    h.diagonal()[never] = 1
    left[:, never] = 0  # such weights do nothing
    if form.desc_act:
        order = h.diagonal().argsort(descending=True, stable=True)
    h = h[order][:, order]
    h.diagonal().add_(DAMPING * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    return order, torch.linalg.cholesky(inverse, upper=True)
