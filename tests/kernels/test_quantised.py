"""A product with weights of few bits is the product with the weights that they stand for."""

import pytest
import torch

from .conftest import ANYWHERE, BOUND, EVERYWHERE, ONLY_GPU
from .reference import error

kernels = pytest.importorskip("transnormer_kernels")


def stored(inputs, outputs, group_size, bits, device, dtype, shuffled=False):
    """Random weights in the format, and W (inputs, outputs) in float64, number by number."""
    each, top, here = 32 // bits, 2**bits, dict(device=device)
    groups = 1 if group_size == -1 else -(-inputs // group_size)
    level = torch.randint(0, top, (inputs, outputs), **here)
    zero = torch.randint(1, top, (groups, outputs), **here)
    scale = (0.01 + 0.05 * torch.rand(groups, outputs, **here)).to(dtype)
    place = torch.arange(0, 32, bits, **here)
    qweight = (level.view(-1, each, outputs) << place[:, None]).sum(1)
    qzeros = ((zero - 1).view(groups, -1, each) << place).sum(2)
    of_input = torch.arange(inputs, **here) // (inputs if group_size == -1 else group_size)
    w = scale.double()[of_input] * (level - zero[of_input])
    order = torch.randperm(inputs, **here).int() if shuffled else None
    if shuffled:  # row i of what is stored is row order[i] of W
        w = torch.empty_like(w).index_copy_(0, order.long(), w)
    signed = [torch.where(t >= 2**31, t - 2**32, t).int() for t in (qweight, qzeros)]
    return [*signed, scale, of_input[::each].int().contiguous(), order], w


def against_float64(device, dtype, all_rows, inputs, outputs, group_size, bits=4, shuffled=False):
    parts, w = stored(inputs, outputs, group_size, bits, device, dtype, shuffled)
    for rows in all_rows:
        x = torch.randn(rows, inputs, device=device, dtype=dtype)
        y = kernels.few_bit_product(x, *parts, bits=bits)
        assert y.dtype == dtype and y.shape == (rows, outputs)
        assert error(y, x.double() @ w) <= BOUND[dtype]


@pytest.mark.parametrize(
    "group_size, shuffled", [(32, False), (64, True), (128, False), (-1, True)]
)
@EVERYWHERE
def test_four_bits(device, dtype, group_size, shuffled):
    """Neither inputs nor outputs fill whole tiles, and the last group is a small one."""
    against_float64(device, dtype, (1, 2, 3, 17), 1064, 40, group_size, shuffled=shuffled)


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("shuffled", [False, True])
@EVERYWHERE
def test_two_and_eight_bits(device, dtype, bits, shuffled):
    against_float64(device, dtype, (1, 3), 528, 48, 32, bits, shuffled)


@pytest.mark.parametrize("inputs, outputs", [(4096, 16384), (4096, 11008), (11008, 4096)])
@pytest.mark.parametrize("shuffled", [False, True])
@ONLY_GPU
def test_sizes_of_the_7b_model(device, dtype, inputs, outputs, shuffled):
    all_rows = (1, 2, 16, 50, 300)
    against_float64(device, dtype, all_rows, inputs, outputs, 128, shuffled=shuffled)


@pytest.mark.parametrize("rows", [1, 3])
@ANYWHERE
def test_any_strides_and_shapes_of_x(device, dtype, rows):
    parts, w = stored(64, 24, 32, 4, device, dtype)
    wide = torch.randn(5, 3 * 64, rows, device=device)
    for x in (wide[:, :64].transpose(1, 2), wide[0, 64:128].T, wide[0, 1::3, 0]):
        y = kernels.few_bit_product(x, *parts)
        assert error(y, x.double() @ w) <= BOUND[dtype]
    assert kernels.few_bit_product(x.new_zeros(0, 64), *parts).shape == (0, 24)


@ANYWHERE
def test_the_highest_bit_of_a_word_is_no_sign(device, dtype):
    """All levels 15: every word is -1, in the weights and in the zeros (z = 16)."""
    minus = lambda *shape: torch.full(shape, -1, dtype=torch.int32, device=device)  # noqa: E731
    scales = torch.full((2, 8), 0.5, device=device)
    group = torch.tensor([0, 1], dtype=torch.int32, device=device)
    for rows in (1, 3):
        x = torch.ones(rows, 16, device=device)
        y = kernels.few_bit_product(x, minus(2, 8), minus(2, 1), scales, group)
        assert (y == 16 * 0.5 * (15 - 16)).all()


@ANYWHERE
def test_it_is_registered(device, dtype):
    parts, _ = stored(64, 24, 32, 4, device, dtype, shuffled=True)
    x = torch.randn(3, 64, device=device)
    torch.library.opcheck(torch.ops.transnormer.few_bit_product.default, (x, *parts, 4))


def test_what_does_not_fit_is_refused():
    parts, _ = stored(64, 24, 32, 4, "cpu", torch.float32, shuffled=True)
    qweight, qzeros, scales, group, order = parts
    x = torch.zeros(2, 64)
    for arguments, error_type, words in [
        ((x.double(), *parts), TypeError, "x is torch.float64"),
        ((x[:, :63], *parts), ValueError, r"x has shape \(2, 63\); .* multiple of 8"),
        ((x, qweight[:7], *parts[1:]), ValueError, r"qweight has shape \(7, 24\)"),
        ((x, qweight.long(), *parts[1:]), TypeError, "qweight is torch.int64"),
        ((x, qweight, qzeros[:1], scales, group), ValueError, r"qzeros has shape \(1, 3\)"),
        ((x, qweight, qzeros, scales[:, :8], group), ValueError, r"scales has shape \(2, 8\)"),
        ((x, qweight, qzeros, scales, group[:3]), ValueError, r"group has shape \(3,\)"),
        ((x, qweight, qzeros, scales, group, order[:9]), ValueError, r"order has shape \(9,\)"),
        ((x, *parts, 3), ValueError, "bits is 3"),
        ((x.requires_grad_(), *parts), ValueError, "no gradient"),
    ]:
        with pytest.raises(error_type, match=words):
            kernels.few_bit_product(*arguments)
