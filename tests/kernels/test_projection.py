"""A projection with all that can stand around it is that, said in float64."""

from itertools import product

import pytest
import torch

from .conftest import ANYWHERE, BOUND, EVERYWHERE, ONLY_GPU
from .reference import error

kernels = pytest.importorskip("transnormer_kernels")

AROUND = [  # norm, gate, pair, silu_below, add
    (False, False, False, 0, False),
    (True, False, False, 7, False),
    (True, True, False, 0, True),
    (True, False, True, 0, False),
    (True, True, True, 5, True),
]


def expected(x, w, norm, gate, pair, silu_below, add, eps=1e-6):
    """y = W f(x), float64."""
    x, w = x.double(), w.double()
    if norm:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    if gate is not None:
        x = x * gate.double()
    y = x @ w.T
    if pair is not None:
        y = y * (x @ pair.double().T)
    y = torch.cat([torch.nn.functional.silu(y[:, :silu_below]), y[:, silu_below:]], dim=1)
    return y if add is None else y + add.double()


def against_float64(device, dtype, rows, width, out, around, early=False):
    norm, gated, paired, silu_below, added = around
    make = lambda *shape: torch.randn(shape, device=device, dtype=dtype)  # noqa: E731
    x, w = make(rows, width), make(out, width) / width**0.5
    given = dict(norm=norm, silu_below=silu_below)
    given["gate"] = make(rows, 3 * width)[:, width : 2 * width] if gated else None
    given["pair"] = make(out, width) / width**0.5 if paired else None
    given["add"] = make(rows, out) if added else None
    if early:
        torch.cuda.synchronize()  # it may read w before the kernels that made w have ended
    y = kernels.projection(x, w, **given, early=early)
    assert y.shape == (rows, out) and y.dtype == dtype
    assert error(y, expected(x, w, **given)) <= BOUND[dtype]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("rows, width, out", [(1, 24, 9), (3, 70, 33), (8, 16, 11)])
@EVERYWHERE
def test_projection(device, dtype, rows, width, out, around):
    against_float64(device, dtype, rows, width, out, around)


@pytest.mark.parametrize(
    "width, out", list(product((1024, 2048, 5120, 11008, 15360), (1000, 2050)))
)
@ONLY_GPU
def test_all_tiles(device, dtype, width, out):
    for around, early in product(AROUND, (False, True)):
        against_float64(device, dtype, 2, width, out, around, early)


@ANYWHERE
def test_eps_is_the_norms(device, dtype):
    x, w = 1e-3 * torch.randn(2, 24, device=device), torch.randn(9, 24, device=device)
    y = kernels.projection(x, w, norm=True, eps=1e-2)
    assert error(y, expected(x, w, True, None, None, 0, None, 1e-2)) <= BOUND[dtype]


def test_what_does_not_fit_is_refused():
    x, w = torch.zeros(2, 24), torch.zeros(9, 24)
    for arguments, around, error_type, words in [
        ((x.double(), w), {}, TypeError, "x is torch.float64"),
        (([1.0], w), {}, TypeError, "x is a list"),
        ((x, None), {}, TypeError, "w is a NoneType"),
        ((x[0], w), {}, ValueError, r"x has shape \(24,\)"),
        ((torch.zeros(9, 24), w), {}, ValueError, "x has 9 rows; 1 to 8"),
        ((x, w[:, :23]), {}, ValueError, r"w has shape \(9, 23\)"),
        ((x, w.half()), {}, TypeError, "w is torch.float16"),
        ((x, w), dict(gate=x), ValueError, "a gate came without norm"),
        ((x, w), dict(norm=True, gate=x[:1]), ValueError, r"gate has shape \(1, 24\)"),
        ((x, w), dict(pair=w[:8]), ValueError, r"pair has shape \(8, 24\)"),
        ((x, w), dict(add=x), ValueError, r"add has shape \(2, 24\)"),
        ((x, w), dict(silu_below=-1), ValueError, "silu_below is -1"),
        ((x, torch.zeros(24, 9).T), {}, ValueError, "must be contiguous"),
        ((x.requires_grad_(), w), {}, ValueError, "no gradient"),
    ]:
        with pytest.raises(error_type, match=words):
            kernels.projection(*arguments, **around)
