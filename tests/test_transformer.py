"""The baseline against softmax attention written out, and its positions against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from tests.models import softmax, tokens
from transnormer_edu.attention import softmax_attention
from transnormer_edu.transformer import (
    KVCache,
    SoftmaxAttention,
    Transformer,
    TransformerConfig,
    rope,
)


def rms(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def heads(x, h):
    return x.unflatten(-1, (h, -1)).transpose(1, 2)


def test_rope_turns_pairs_by_their_angle():
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    position = torch.tensor([4, 5, 6, 7, 90])
    turned = rope(x, position)
    for j in range(3):
        pair = torch.complex(x[..., j], x[..., j + 3])
        angle = position * 10000 ** (-2 * j / 6)
        expected = pair * torch.exp(1j * angle)
        close = dict(rtol=1e-4, atol=1e-5)  # angles are float32
        torch.testing.assert_close(turned[..., j], expected.real, **close)
        torch.testing.assert_close(turned[..., j + 3], expected.imag, **close)


@pytest.mark.parametrize("position", ["rope", "absolute"])
@pytest.mark.parametrize("mlp", ["swiglu", "sglu"])
def test_the_model_is_its_formula(position, mlp):
    model, ids = softmax(position=position, mlp=mlp, layers=2), tokens(2, 9)
    parts, where = model.model, torch.arange(9)
    x = parts["embed_tokens"].weight[ids]
    if position == "absolute":
        angle = where[:, None] * 10000 ** (-torch.arange(0, 20, 2) / 20)
        x = x + torch.cat([angle.sin(), angle.cos()], dim=-1)
    for layer in parts["layers"]:
        y = rms(x) * layer.token_norm.weight
        q, k, v = (heads(y @ w.T, 5) for w in layer.token_mixer.qkv_proj.weight.chunk(3))
        if position == "rope":
            q, k = rope(q, where), rope(k, where)
        o = softmax_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + o @ layer.token_mixer.out_proj.weight.T
        y, mixer = rms(x) * layer.channel_norm.weight, layer.channel_mixer
        gate = y @ mixer.l1.weight.T
        gate = F.silu(gate) if mlp == "swiglu" else gate
        x = x + (gate * (y @ mixer.l2.weight.T)) @ mixer.l3.weight.T
    logits = (rms(x) * parts["final_norm"].weight) @ parts["embed_tokens"].weight.T
    torch.testing.assert_close(model(ids), logits, rtol=1e-5, atol=1e-5)


def test_the_cache_grows_with_every_token():
    model = softmax()
    _, state = model(tokens(2, 9), return_state=True)
    _, longer = model(tokens(2, 4), state=state, return_state=True)
    assert state.layers[0].k.shape == (2, 5, 9, 4) and longer.layers[0].k.shape == (2, 5, 13, 4)


def test_without_a_mask_the_fast_causal_path_is_taken(monkeypatch):
    seen = []
    sdpa = F.scaled_dot_product_attention
    spy = lambda *a, **k: seen.append(k) or sdpa(*a, **k)  # noqa: E731
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    layer = SoftmaxAttention(softmax().config).double()
    layer(torch.randn(2, 7, 20).double(), torch.arange(7), return_cache=True)
    assert seen[0]["is_causal"] and seen[0]["attn_mask"] is None


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(heads=4), "4 heads do not divide dim 20 into pairs"),
        (dict(position="alibi"), "position is 'alibi', expected one of rope, absolute"),
        (dict(mlp="relu"), "mlp is 'relu', expected one of swiglu, sglu"),
        (dict(layers=0), "layers is 0"),
    ],
)
def test_choices_that_cannot_work_are_named(change, sentence):
    sizes = dict(vocab_size=37, dim=20, layers=3, heads=5, glu_dim=22)
    with pytest.raises(ValueError, match=sentence):
        TransformerConfig(**sizes | change)


@pytest.mark.bad_input
def test_a_cache_of_other_sizes_is_named():
    model = softmax()
    _, state = model(tokens(2, 5), return_state=True)
    narrow = state._replace(layers=tuple(KVCache(*(x[:1] for x in kv)) for kv in state.layers))
    with pytest.raises(ValueError, match=r"got a cache of keys \(1, 5, 5, 4\), new keys \(2, 5"):
        model(tokens(2, 5), state=narrow)


def test_equal_size_as_the_linear_model():
    from transnormer_edu import TransNormerConfig, TransNormerLLM

    sizes = dict(vocab_size=64000, dim=1024, layers=24, heads=8)
    with torch.device("meta"):
        linear = TransNormerLLM(TransNormerConfig(**sizes, glu_dim=2816))
        # GLA has a gate more than softmax attention: d^2 a layer, given here to the MLP.
        twin = Transformer(TransformerConfig(**sizes, glu_dim=2816 + 341))
    count = [sum(p.numel() for p in m.parameters()) for m in (linear, twin)]
    assert count[1] == pytest.approx(count[0], rel=1e-3)
