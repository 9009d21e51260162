"""Norms against their formulas, and SRMSNorm's gradient against the one derived by hand."""

import pytest
import torch

from transnormer_edu.norm import NORMS, srmsnorm


def rows(dtype=torch.float64):
    return 3 * torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=dtype) + 1


def test_srmsnorm_is_its_formula():
    x = rows()
    y = srmsnorm(x)
    for i in range(4):
        expected = x[i] / ((x[i] ** 2).sum() / 7 + 1e-6) ** 0.5
        torch.testing.assert_close(y[i], expected)
    assert not hasattr(NORMS["simplermsnorm"](7), "weight")


def test_srmsnorm_gradient_is_the_derived_one():
    x, dy = rows().requires_grad_(), rows().cos()
    y = srmsnorm(x)
    y.backward(dy)
    rho = (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    torch.testing.assert_close(x.grad, rho * (dy - y * (y * dy).mean(-1, keepdim=True)))


def test_a_row_of_zeros_stays_finite():
    x = torch.zeros(2, 5, requires_grad=True)
    srmsnorm(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_normed_in_float32(dtype):
    x = (300 * rows()).to(dtype)  # 300^2 overflows float16
    y = srmsnorm(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), srmsnorm(x.double()), rtol=1e-2, atol=1e-2)


def test_the_other_norms_scale_and_centre():
    x = 0.01 * rows()  # so small that eps matters
    torch.testing.assert_close(NORMS["rmsnorm"](7).double()(x), srmsnorm(x))
    centred = x - x.mean(-1, keepdim=True)
    expected = srmsnorm(centred, eps=1e-5)  # PyTorch's own, which the released models' code takes
    torch.testing.assert_close(NORMS["layernorm"](7).double()(x), expected)


@pytest.mark.bad_input
def test_lists_and_whole_numbers_are_named():
    with pytest.raises(TypeError, match="x is a list, expected a tensor"):
        srmsnorm([1.0, 2.0])
    with pytest.raises(TypeError, match="got x of type torch.int64; expected a floating type"):
        srmsnorm(torch.arange(4))
    with pytest.raises(ValueError, match="dim is '4', expected a whole number"):
        NORMS["simplermsnorm"]("4")
