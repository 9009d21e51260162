"""The loss that comes piece by piece is PyTorch's, with its gradients, however it is cut."""

import math

import jaxtyping
import pytest
import torch
import torch.nn.functional as F

from tests.models import BOTH, tokens
from transnormer_edu import cross_entropy as module
from transnormer_edu.cross_entropy import IGNORED_LABEL, cross_entropy

ROWS, WIDTH, WORDS = 17, 5, 11


def operands(dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    x, e = (
        torch.randn(n, WIDTH, generator=draw, dtype=torch.float64).to(dtype) for n in (ROWS, WORDS)
    )
    labels = torch.randint(WORDS, (ROWS,), generator=draw)
    labels[[0, 3, 16]] = IGNORED_LABEL
    return x.requires_grad_(), e.requires_grad_(), labels


def expected(x, e, labels):
    loss = F.cross_entropy(x @ e.T, labels, ignore_index=IGNORED_LABEL)
    return loss, *torch.autograd.grad(2.5 * loss, (x, e))


def same(loss, x, e, labels):
    found = (loss, *torch.autograd.grad(2.5 * loss, (x, e)))
    for ours, theirs in zip(found, expected(x, e, labels), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("piece", [1, 3 * WORDS, 5 * WORDS + 2, 10**6])
def test_it_is_pytorchs_loss_with_its_gradients(monkeypatch, piece):
    monkeypatch.setitem(module.PIECE, "cpu", piece)
    x, e, labels = operands()
    same(cross_entropy(x, e, labels), x, e, labels)


@pytest.fixture
def without_shape_checks():
    """torch.compile cannot follow them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_it_can_be_compiled_in_one_piece(monkeypatch, without_shape_checks):
    monkeypatch.setitem(module.PIECE, "cpu", 3 * WORDS)
    x, e, labels = operands()
    compiled = torch.compile(cross_entropy, backend="aot_eager", fullgraph=True)
    same(compiled(x, e, labels), x, e, labels)


def test_without_a_gradient_only_the_loss_is_computed(monkeypatch):
    monkeypatch.setattr(module, "add_product", lambda *x: pytest.fail("a gradient was computed"))
    x, e, labels = operands()
    with torch.no_grad():
        loss = cross_entropy(x, e, labels)
    torch.testing.assert_close(loss, expected(x, e, labels)[0])
    assert not loss.requires_grad


def test_no_label_left_is_no_number_and_not_zero():
    x, e, labels = operands()
    assert math.isnan(cross_entropy(x.detach(), e.detach(), torch.full_like(labels, IGNORED_LABEL)))


def test_a_row_that_is_left_out_may_hold_anything():
    x, e, labels = operands()
    broken = x.detach().clone()
    broken[0] = math.nan
    loss = cross_entropy(broken, e, labels)
    torch.testing.assert_close(loss, expected(x, e, labels)[0])


@pytest.mark.parametrize("way", ["own type", "autocast"])
def test_in_half_precision_sums_are_wide(monkeypatch, way):
    monkeypatch.setitem(module.PIECE, "cpu", 4 * WORDS)
    exact = expected(*operands())
    if way == "own type":
        x, e, labels = operands(torch.bfloat16)
        loss = cross_entropy(x, e, labels)
    else:
        x, e, labels = operands(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(x, e, labels)
    found = (loss, *torch.autograd.grad(2.5 * loss, (x, e)))
    assert loss.dtype == torch.float32 and [g.dtype for g in found[1:]] == [x.dtype, e.dtype]
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours.double() - theirs).norm() / theirs.norm() < 0.02


@pytest.mark.parametrize("name", BOTH)
def test_both_models_never_hold_all_logits(monkeypatch, name):
    model, ids = BOTH[name](), tokens(3, 7)
    monkeypatch.setattr(model, "head", lambda x: pytest.fail("all logits were computed"))
    assert model(ids, labels=ids).isfinite()
