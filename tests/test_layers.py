"""GLA, SGLU and the block against the facts, written out for one token at a time in float64."""

import pytest
import torch
import torch.nn.functional as F

from transnormer_edu.activation import ACTIVATIONS
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.decay import released_rates
from transnormer_edu.layers import GLA, SGLU, Block

B, N, D, H, G = 2, 9, 12, 3, 20
POSITION = torch.arange(N)


def config(**changes):
    return TransNormerConfig(**dict(vocab_size=30, dim=D, layers=4, heads=H, glu_dim=G) | changes)


def seeded(module):
    draw = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data.normal_(generator=draw).mul_(0.4)
    return module


def inputs():
    return torch.randn(B, N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def norm(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def gla_token_by_token(layer, x, index, hidden, lrpe):
    """The facts page's seven steps, in loops."""
    q, k, v, u = (x @ layer.qkvu_proj.weight.T).reshape(B, N, 4, hidden).unbind(2)
    q, k = F.silu(q), F.silu(k)
    rate, width = released_rates(H, index, 4).double(), hidden // H
    out = torch.zeros(B, N, hidden, dtype=torch.float64)
    for h in range(H):
        part = slice(h * width, (h + 1) * width)
        for t in range(N):
            for s in range(t + 1):
                product = q[:, t, part] * k[:, s, part]
                if lrpe:
                    product = product * torch.cos(layer.lrpe.theta[h, 0] * (t - s))
                weight = torch.exp(-rate[h] * (t - s)) * product.sum(-1)
                out[:, t, part] += weight[:, None] * v[:, s, part]
    return (u * norm(out)) @ layer.out_proj.weight.T


@pytest.mark.parametrize("index, hidden", [(0, D), (2, D), (0, 18), (3, 6)])
def test_gla_is_the_facts(index, hidden):
    layer = seeded(GLA(config(hidden_dim=hidden), index))
    with torch.no_grad():
        out, state = layer(inputs(), POSITION)
        expected = gla_token_by_token(layer, inputs(), index, hidden, lrpe=index == 0)
    assert state is None and (layer.lrpe is not None) == (index == 0)
    torch.testing.assert_close(out, expected)


def test_gates():
    x = inputs()
    thin = seeded(GLA(config(gate=2), 1))
    assert [tuple(p.shape) for p in thin.u_proj.parameters()] == [(2, D), (D, 2)]
    bare = seeded(GLA(config(gate="none"), 1))
    assert bare.qkvu_proj.weight.shape == thin.qkvu_proj.weight.shape == (3 * D, D)
    bare.load_state_dict({k: v for k, v in thin.state_dict().items() if "u_proj." not in k[:7]})
    thin.out_proj.weight.data = bare.out_proj.weight.data = torch.eye(D).double()
    u = x @ thin.u_proj[0].weight.T @ thin.u_proj[1].weight.T
    torch.testing.assert_close(thin(x, POSITION)[0], u * bare(x, POSITION)[0])


def test_sglu_has_an_activation_only_when_asked():
    x = inputs()
    for name in ("none", "silu"):
        layer = seeded(SGLU(D, G, name))
        w1, w2, w3 = (p for p in layer.parameters())
        gate = x @ w1.T if name == "none" else F.silu(x @ w1.T)
        torch.testing.assert_close(layer(x), (gate * (x @ w2.T)) @ w3.T)


@pytest.mark.bad_input
def test_sglu_names_what_it_cannot_take():
    with pytest.raises(ValueError, match="activation is 'x', expected one of silu, swish"):
        SGLU(D, G, "x")
    with pytest.raises(ValueError, match="glu_dim is 1.5, expected a whole number"):
        SGLU(D, 1.5)


def test_block_adds_both_mixers_to_what_came_in():
    block, x = seeded(Block(config(), 0)), inputs()
    mixed, _ = block.token_mixer(norm(x), POSITION)
    expected = x + mixed + block.channel_mixer(norm(x + mixed))
    torch.testing.assert_close(block(x, POSITION)[0], expected)


def test_activations_by_value():
    x = torch.tensor([[-1.5, 0.0, 0.7]], dtype=torch.float64)
    expected = {
        "silu": x / (1 + torch.exp(-x)),
        "swish": x / (1 + torch.exp(-x)),
        "relu": x.clamp(min=0),
        "gelu": x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "elu": torch.where(x > 0, x, torch.exp(x) - 1),
        "sigmoid": 1 / (1 + torch.exp(-x)),
        "exp": torch.exp(x - 0.7),
        "leak": torch.where(x > 0, x, 0.01 * x),
        "1+elu": 1 + torch.where(x > 0, x, torch.exp(x) - 1),
        "2+elu": 2 + torch.where(x > 0, x, torch.exp(x) - 1),
        "sine": x.sin(),
        "none": x,
    }
    assert expected.keys() == ACTIVATIONS.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ACTIVATIONS[name](x), value)


def test_exp_passes_no_gradient_through_its_maximum():
    x = torch.tensor([0.2, 0.9], dtype=torch.float64, requires_grad=True)
    ACTIVATIONS["exp"](x).sum().backward()
    torch.testing.assert_close(x.grad, torch.exp(x.detach() - 0.9))


def test_rates_are_not_rounded_with_the_weights():
    layer = GLA(config(), 1)
    exact = layer.rate.clone()
    layer.bfloat16()
    assert layer.qkvu_proj.weight.dtype == torch.bfloat16
    assert torch.equal(layer.rate, exact)
    wide = GLA(config(), 1).double().rate
    assert torch.equal(wide, released_rates(H, 1, 4, torch.float64))
    again = GLA(config(), 1).double().float().rate
    assert again.dtype == torch.float32 and torch.equal(again, exact)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(GLA(config(), 1).rate, released_rates(H, 1, 4, torch.float64))
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        empty = GLA(config(), 1)
    assert torch.equal(empty.to_empty(device="cpu").rate, exact)
