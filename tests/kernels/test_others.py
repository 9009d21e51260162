"""v1, SRMSNorm with and without the gate, and the decode step."""

import pytest
import torch

from .conftest import ANYWHERE, BOUND, EVERYWHERE, HALF, ONLY_GPU, bound
from .reference import error, recurrence, wide

kernels = pytest.importorskip("transnormer_kernels")


def against_v1(device, dtype, b, h, n, dk, dv):
    make = lambda d: torch.randn(b, n, h, d, device=device, dtype=dtype).transpose(1, 2)  # noqa: E731
    q, k, v = (make(d).requires_grad_() for d in (dk, dk, dv))
    do, rate = make(dv), torch.tensor([0.0, 0.37, 8.0], device=device)[:h]
    o = kernels.lightning_attention_v1(q, k, v, rate)
    exact = wide(q, k, v)
    ref = recurrence(*exact, rate)[0]
    got = torch.autograd.grad(o, [q, k, v], do)
    wanted = torch.autograd.grad(ref, exact, do.double())
    for x, y in zip((o, *got), (ref, *wanted), strict=True):
        assert error(x, y) <= bound(dtype, n)


@pytest.mark.parametrize("b, h, n, dk, dv", [(1, 2, 1, 16, 16), (2, 3, 37, 24, 40)])
@EVERYWHERE
def test_v1(device, dtype, b, h, n, dk, dv):
    against_v1(device, dtype, b, h, n, dk, dv)


@pytest.mark.parametrize(
    "dk, dv", [(32, 32), (64, 16), (128, 128), (256, 16), (256, 32), (256, 256)]
)
@ONLY_GPU
def test_v1_every_row_of_its_table(device, dtype, dk, dv):
    against_v1(device, dtype, 2, 3, 200, dk, dv)


def normed(x):
    return x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-6)


def against_norm(device, dtype, shape, gated):
    """Output and gradients."""
    x, u, dy = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))
    x, u = x.requires_grad_(), u.requires_grad_()
    y = kernels.srmsnorm_gate(x, u) if gated else kernels.srmsnorm(x)
    leaves = [x, u] if gated else [x]
    exact = wide(*leaves)
    ref = normed(exact[0]) * (exact[1] if gated else 1)
    got = torch.autograd.grad(y, leaves, dy)
    wanted = torch.autograd.grad(ref, exact, dy.double())
    assert y.shape == x.shape and y.dtype == dtype
    if x.numel():
        for a, b in zip((y, *got), (ref, *wanted), strict=True):
            assert error(a.flatten(), b.flatten()) <= BOUND[dtype]


@pytest.mark.parametrize("shape", [(7,), (5, 33), (2, 3, 1000), (2, 2, 3, 20), (0, 4)])
@pytest.mark.parametrize("gated", [False, True])
@EVERYWHERE
def test_srmsnorm(device, dtype, shape, gated):
    against_norm(device, dtype, shape, gated)


@pytest.mark.parametrize("width", [512, 1024, 2048, 4096, 8192, 16384])
@pytest.mark.parametrize("gated", [False, True])
@ONLY_GPU
def test_srmsnorm_with_every_number_of_warps(device, dtype, width, gated):
    against_norm(device, dtype, (300, width), gated)


@HALF
def test_srmsnorm_any_strides(device, dtype):
    """A slice of a projection, and (b, n) the wrong way round: no copies."""
    wide = torch.randn(3, 5, 4 * 24, device=device, dtype=dtype)
    for x in (wide[..., 24:48], wide.transpose(0, 1), wide[..., ::4]):
        assert error(kernels.srmsnorm(x), normed(x)) <= BOUND[dtype]
        assert error(kernels.srmsnorm_gate(x, x), normed(x) * x.double()) <= BOUND[dtype]


@ANYWHERE
def test_v1_is_registered(device, dtype):
    q, k, v = (torch.randn(1, 2, 20, 16, device=device, requires_grad=True) for _ in range(3))
    arguments = (q, k, v, torch.rand(2, device=device))
    torch.library.opcheck(torch.ops.transnormer.lightning_attention_v1.default, arguments)


@ANYWHERE
def test_srmsnorm_is_registered(device, dtype):
    x, u = (torch.randn(3, 20, device=device, requires_grad=True) for _ in range(2))
    torch.library.opcheck(torch.ops.transnormer.srmsnorm.default, (x, u, 1e-6))


def decode_and_compare(q, k, v, rate, state, o, final, lrpe=lambda t: {}):
    """Each step's output and the state that they leave; q, k, v (b, n, h, ...), o (b, h, n, dv)."""
    for t in range(q.shape[1]):
        got = kernels.decode_step(q[:, t], k[:, t], v[:, t], rate, state, **lrpe(t))
        assert error(got.flatten(), o[:, :, t].flatten()) <= BOUND[q.dtype]
    assert error(state, final) <= 1e-5


@pytest.mark.parametrize("dk, dv", [(16, 16), (40, 24), (3, 5), (256, 128)])
@EVERYWHERE
def test_decode_steps_follow_the_recurrence(device, dtype, dk, dv):
    b, h, n = 2, 3, 4
    q, k = (torch.randn(b, n, h, dk, device=device, dtype=dtype) for _ in range(2))
    v = torch.randn(b, n, h, dv, device=device, dtype=dtype)
    rate = torch.tensor([0.0, 0.37, 8.0], device=device)
    state = torch.randn(b, h, dk, dv, device=device)
    o, final = recurrence(*(x.transpose(1, 2) for x in (q, k, v)), rate, state)
    decode_and_compare(q, k, v, rate, state, o, final)


@pytest.mark.parametrize("features, dv", [(8, 16), (11, 5), (128, 128)])
@EVERYWHERE
def test_decode_step_turns_q_and_k_by_their_position(device, dtype, features, dv):
    """LRPE on the way: the recurrence of [x cos, x sin], also a million tokens into a text."""
    b, h, n = 2, 3, 4
    q, k = (torch.randn(b, n, h, features, device=device, dtype=dtype) for _ in range(2))
    v = torch.randn(b, n, h, dv, device=device, dtype=dtype)
    rate = torch.tensor([0.0, 0.37, 8.0], device=device)
    theta = torch.rand(h, 1, features, device=device)
    state = torch.randn(b, h, 2 * features, dv, device=device)
    position = torch.tensor([[5, 1_000_003]], device=device).T + torch.arange(n, device=device)
    angle = (theta[:, 0] * position[:, :, None, None]).double()  # the angle itself is float32
    turned = (torch.cat([x * angle.cos(), x * angle.sin()], dim=-1) for x in (q, k))
    o, final = recurrence(*(x.transpose(1, 2) for x in (*turned, v)), rate, state)
    lrpe = lambda t: {"theta": theta, "position": position[:, t]}  # noqa: E731
    decode_and_compare(q, k, v, rate, state, o, final, lrpe)


@ANYWHERE
def test_decode_step_is_registered(device, dtype):
    q, k, v = (torch.randn(2, 3, 16, device=device) for _ in range(3))
    state = torch.zeros(2, 3, 16, 16, device=device)
    arguments = (q, k, v, torch.rand(3, device=device), state)
    torch.library.opcheck(torch.ops.transnormer.decode_step.default, arguments)
    theta, state = torch.rand(3, 1, 16, device=device), torch.zeros(2, 3, 32, 16, device=device)
    arguments = (*arguments[:4], state, theta, torch.tensor([3, 90], device=device), True)
    torch.library.opcheck(torch.ops.transnormer.decode_step.default, arguments)


def test_a_norms_gradient_may_lie_in_any_order():
    x = torch.randn(2, 3, 4, 8, requires_grad=True)
    weights = torch.randn(2, 4, 3, 8)
    (kernels.srmsnorm(x).transpose(1, 2).contiguous() * weights).sum().backward()
    other = x.detach().double().requires_grad_()
    exact = other * torch.rsqrt(other.square().mean(-1, keepdim=True) + 1e-6)
    (exact * weights.transpose(1, 2)).sum().backward()
    torch.testing.assert_close(x.grad, other.grad.float())


def test_decode_step_refuses_what_does_not_fit():
    q, state = torch.zeros(1, 2, 16), torch.zeros(1, 2, 16, 16)
    rate = torch.zeros(2)
    for arguments, words in [
        ((q[0], q, q, rate, state), r"q has shape \(2, 16\)"),
        ((q, q, q, rate, state[:, :1]), "state has shape"),
        ((q, q, q, rate[:1], state), r"rate has shape \(1,\)"),
        ((q.requires_grad_(), q, q, rate, state), "no gradient"),
    ]:
        with pytest.raises(ValueError, match=words):
            kernels.decode_step(*arguments)
    q, theta, position = q.detach(), torch.zeros(2, 1, 16), torch.zeros(1, dtype=torch.int64)
    for turn, error_type, words in [
        ({"theta": theta}, ValueError, "belong together"),
        ({"theta": theta[:1], "position": position}, ValueError, r"theta has shape \(1, 1, 16\)"),
        ({"theta": theta, "position": position.int()}, TypeError, "position is torch.int32"),
        ({"theta": theta, "position": position}, ValueError, r"\(1, 2, 32, 16\) was expected"),
    ]:
        with pytest.raises(error_type, match=words):
            kernels.decode_step(q, q, q, rate, state, **turn)


def test_norms_refuse_what_does_not_fit():
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="x is torch.float64"):
        kernels.srmsnorm(x.double())
    with pytest.raises(ValueError, match="must agree"):
        kernels.srmsnorm_gate(x, x[:1])
    with pytest.raises(ValueError, match="cannot be read as rows"):
        kernels.srmsnorm(torch.zeros(2, 3, 4, 5).transpose(1, 2))
    with pytest.raises(ValueError, match="call .contiguous"):
        kernels.srmsnorm(torch.empty_strided((1, 1024), (1, 2**22), device="meta"))
