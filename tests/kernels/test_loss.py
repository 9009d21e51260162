"""The loss of a row of logits, and its gradient in their place, against PyTorch in float64."""

import pytest
import torch
import torch.nn.functional as F

from .conftest import ANYWHERE, EVERYWHERE, ONLY_GPU

kernels = pytest.importorskip("transnormer_kernels")

IGNORED = -100
# Losses are sums in float32; a gradient is rounded to the type of its logits, one by one.
ROUNDED = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def against_float64(device, dtype, rows, width, scale=3.0):
    logits = (scale * torch.randn(rows, width, device=device)).to(dtype)
    labels = torch.randint(width, (rows,), device=device)
    labels[rows // 2] = IGNORED
    exact = logits.double().requires_grad_()
    expected = F.cross_entropy(exact, labels, ignore_index=IGNORED, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), exact)
    losses = kernels.loss_and_gradient_(logits, labels, IGNORED)
    assert losses.dtype == torch.float32 and logits.dtype == dtype
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    room = ROUNDED[dtype] * gradient.abs() + 1e-6
    assert ((logits.double() - gradient).abs() <= room).all()


@pytest.mark.parametrize("rows, width", [(1, 1), (5, 7), (3, 300)])
@EVERYWHERE
def test_loss_and_gradient(device, dtype, rows, width):
    against_float64(device, dtype, rows, width)


@ANYWHERE
def test_a_row_in_more_than_one_step(device, dtype):
    against_float64(device, dtype, 2, 2 * 16384 + 5)


@ANYWHERE
def test_large_logits_do_not_overflow(device, dtype):
    against_float64(device, dtype, 4, 50, scale=1e4)


@pytest.mark.parametrize("width", [1000, 2500, 5000, 10000, 64000, 100280])
@ONLY_GPU
def test_every_size_of_a_step(device, dtype, width):
    against_float64(device, dtype, 40, width)


@ANYWHERE
def test_words_that_cannot_come_and_rows_apart_in_memory(device, dtype):
    """-inf is a logit of no weight; rows may lie further apart than they are wide."""
    wide = torch.randn(3, 20, device=device)
    logits, plain = wide[:, :9], wide[:, :9].clone()
    logits[:, :4] = plain[:, :4] = -torch.inf
    labels = torch.tensor([4, 8, 6], device=device)
    beside = wide[:, 9:].clone()
    losses = kernels.loss_and_gradient_(logits, labels)
    torch.testing.assert_close(losses, F.cross_entropy(plain, labels, reduction="none"))
    share = plain.softmax(1) - F.one_hot(labels, 9)
    torch.testing.assert_close(logits, share)
    assert torch.equal(wide[:, 9:], beside)


@ANYWHERE
def test_a_label_that_is_no_column_gives_no_number(device, dtype):
    labels = torch.tensor([9, -1, 3], device=device)
    losses = kernels.loss_and_gradient_(torch.randn(3, 9, device=device), labels)
    assert losses.isnan().tolist() == [True, True, False]


@ANYWHERE
def test_it_is_registered(device, dtype):
    logits = torch.randn(3, 9, device=device)
    labels = torch.tensor([2, IGNORED, 8], device=device)
    op = torch.ops.transnormer.loss_and_gradient.default
    torch.library.opcheck(op, (logits, labels, IGNORED))


def test_what_does_not_fit_is_refused():
    x, labels = torch.zeros(2, 9), torch.zeros(2, dtype=torch.int64)
    for arguments, error_type, words in [
        (([[1.0]], labels), TypeError, "logits is a list"),
        ((x.double(), labels), TypeError, "logits is torch.float64"),
        ((x[0], labels), ValueError, r"logits has shape \(9,\)"),
        ((x, labels[:1]), ValueError, r"labels has shape \(1,\)"),
        ((x, labels.int()), TypeError, "labels is torch.int32"),
        ((x, labels.to("meta")), ValueError, "labels is on meta"),
        ((torch.zeros(9, 2).T, labels), ValueError, "have strides"),
        ((x, labels.repeat(2)[::2]), ValueError, "have strides"),
    ]:
        with pytest.raises(error_type, match=words):
            kernels.loss_and_gradient_(*arguments)
