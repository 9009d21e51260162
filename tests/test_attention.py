"""The three forms are one function: outputs, final states and all gradients, in float64.

The reference is the sum written out, one term at a time; sizes are pairwise different.
"""

import math

import numpy as np
import pytest
import torch

from transnormer_edu.attention import (
    linear_attention,
    linear_weights,
    softmax_attention,
    softmax_weights,
)
from transnormer_edu.decay import paper_rates, released_rates
from transnormer_edu.lightning import lightning_attention

B, H, N, DK, DV = 2, 3, 17, 5, 7
FORMS = ("parallel", "recurrent", "chunked")


def operands(n=N, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = [(B, H, n, DK), (B, H, n, DK), (B, H, n, DV), (B, H, DK, DV)]
    return [torch.randn(*s, generator=draw, dtype=torch.float64).to(dtype) for s in shapes]


def by_the_sum(q, k, v, rate, state):
    """o_t = sum_{s<=t} e^(-r(t-s)) (q_t k_s) v_s + e^(-r(t+1)) q_t S, term by term."""
    o = torch.zeros(B, H, q.shape[2], DV, dtype=torch.float64)
    for t in range(q.shape[2]):
        o[:, :, t] = math.e ** (-rate * (t + 1))[:, None] * (q[:, :, t, None] @ state)[:, :, 0]
        for s in range(t + 1):
            score = (q[:, :, t] * k[:, :, s]).sum(-1) * math.e ** (-rate * (t - s))
            o[:, :, t] += score[..., None] * v[:, :, s]
    return o


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rate", [[0.3, 0.05, 1.1], [0.0, 0.7, 8.0]])
@pytest.mark.parametrize("chunk_size", [1, 4, 6, 17, 64])
def test_every_form_is_the_sum(form, rate, chunk_size):
    q, k, v, state = operands()
    rate = torch.tensor(rate, dtype=torch.float64)
    o = linear_attention(q, k, v, rate, form, state=state, chunk_size=chunk_size)
    torch.testing.assert_close(o, by_the_sum(q, k, v, rate, state), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", [1, 5, 16])
def test_a_sequence_in_two_pieces_is_the_whole(form, split):
    q, k, v, state = operands()
    rate = released_rates(H, 1, 4).double()
    whole, last = linear_attention(q, k, v, rate, form, state=state, return_state=True)
    first, between = linear_attention(
        *(x[:, :, :split] for x in (q, k, v)), rate, form, state=state, return_state=True
    )
    second, end = linear_attention(
        *(x[:, :, split:] for x in (q, k, v)), rate, "chunked", state=between, return_state=True
    )
    torch.testing.assert_close(torch.cat([first, second], dim=2), whole)
    torch.testing.assert_close(end, last)


@pytest.mark.parametrize("form", FORMS)
def test_final_state_is_the_decayed_sum(form):
    q, k, v, state = operands()
    rate = torch.tensor([0.3, 0.05, 1.1], dtype=torch.float64)
    _, last = linear_attention(q, k, v, rate, form, state=state, return_state=True, chunk_size=4)
    expected = torch.exp(-rate * N)[:, None, None] * state
    for s in range(N):
        weight = torch.exp(-rate * (N - 1 - s))[:, None, None]
        expected = expected + weight * torch.einsum("bhd,bhe->bhde", k[:, :, s], v[:, :, s])
    torch.testing.assert_close(last, expected)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_finite_differences(form):
    q, k, v, state = (x.requires_grad_() for x in operands(n=6))
    rate = torch.tensor([0.3, 0.0, 1.1], dtype=torch.float64)

    def both(*inputs):
        *qkv, s = inputs
        return linear_attention(*qkv, rate, form, state=s, return_state=True, chunk_size=4)

    assert torch.autograd.gradcheck(both, (q, k, v, state))
    assert torch.autograd.gradgradcheck(both, (q, k, v, state))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "dtype, close", [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)]
)
def test_narrow_types_come_close_and_keep_their_type(form, dtype, close):
    q, k, v, state = operands(dtype=dtype)
    rate = released_rates(H, 0, 4)
    o, last = linear_attention(q, k, v, rate, form, state=state.float(), return_state=True)
    assert o.dtype == dtype and last.dtype == torch.float32
    exact = by_the_sum(q.double(), k.double(), v.double(), rate.double(), state.double())
    assert (o.double() - exact).norm() / exact.norm() < close


@pytest.mark.parametrize("form", FORMS)
def test_the_future_is_not_seen_even_without_decay(form):
    q, k, v, _ = operands()
    rate = torch.zeros(H, dtype=torch.float64)
    before = linear_attention(q, k, v, rate, form, chunk_size=4)
    k[:, :, 10:], v[:, :, 10:] = 100.0, -100.0
    after = linear_attention(q, k, v, rate, form, chunk_size=4)
    assert torch.equal(before[:, :, :10], after[:, :, :10])
    assert not torch.allclose(before[:, :, 10:], after[:, :, 10:])


@pytest.mark.parametrize("form", FORMS)
def test_fast_decay_over_many_tokens_neither_overflows_nor_vanishes(form):
    q, k, v, _ = operands(n=300, dtype=torch.float32)
    rate = paper_rates(H, 0, 24)
    assert rate.max() == 8
    o = linear_attention(q, k, v, rate, form)
    assert o.isfinite().all()
    newest = (q * k).sum(-1, keepdim=True) * v
    torch.testing.assert_close(o[:, -1], newest[:, -1], rtol=0, atol=0.05)


def test_rates_may_differ_between_rows():
    q, k, v, state = operands()
    rate = torch.tensor([[0.3, 0.05, 1.1], [0.0, 0.7, 2.0]], dtype=torch.float64)
    for form in FORMS:
        o = linear_attention(q, k, v, rate, form, state=state, chunk_size=4)
        for row in range(B):
            alone = linear_attention(
                *(x[row, None] for x in (q, k, v)), rate[row], form, state=state[row, None]
            )
            torch.testing.assert_close(o[row, None], alone)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batched", range(4))
def test_any_operand_alone_can_be_vmapped(form, batched):
    given = [operands(seed=seed) for seed in (0, 1, 2)]
    rate = torch.tensor([0.3, 0.05, 1.1], dtype=torch.float64)

    def attend(x):
        q, k, v, state = *given[0][:batched], x, *given[0][batched + 1 :]
        return linear_attention(q, k, v, rate, form, state=state, chunk_size=6)

    several = torch.stack([each[batched] for each in given])
    expected = torch.stack([attend(x) for x in several])
    torch.testing.assert_close(torch.func.vmap(attend)(several), expected)


def test_strided_inputs_need_no_copy():
    q, k, v, _ = operands()
    rate = released_rates(H, 0, 2).double()
    token_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert not token_first[0].is_contiguous()
    torch.testing.assert_close(
        linear_attention(*token_first, rate), linear_attention(q, k, v, rate)
    )


def test_linear_weights_are_the_map_of_linear_attention():
    q, k, v, _ = operands()
    rate = released_rates(H, 0, 3).double()
    torch.testing.assert_close(linear_weights(q, k, rate) @ v, linear_attention(q, k, v, rate))


def test_maps_are_computed_in_a_wider_type():
    q, k, v, _ = operands()
    rate = released_rates(H, 0, 3)  # float32, beside operands in float64
    exact = dict(rtol=1e-12, atol=1e-12)
    got = linear_weights(q, k, rate) @ v
    torch.testing.assert_close(got, linear_attention(q, k, v, rate), **exact)
    large = torch.full((1, 1, 2, 64), 40.0, dtype=torch.float16)  # q k = 102400 > 65504
    torch.testing.assert_close(softmax_attention(large, large, large), large)


@pytest.mark.bad_input
def test_a_chunk_size_may_be_numpys():
    q, k, v, _ = operands()
    rate = released_rates(H, 0, 3)
    got = linear_attention(q, k, v, rate, chunk_size=np.int64(4))
    assert torch.equal(got, linear_attention(q, k, v, rate, chunk_size=4))


def test_softmax_attention_is_pytorchs():
    q, k, v, _ = operands()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(softmax_attention(q, k, v), expected)
    torch.testing.assert_close(softmax_weights(q, k).sum(-1), torch.ones(B, H, N).double())


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(form="fast"), "form is 'fast', expected one of parallel, recurrent, chunked"),
        (dict(form=["chunked"]), "expected one of parallel, recurrent, chunked"),
        (dict(chunk_size=0), "chunk_size is 0"),
        (dict(chunk_size=1.5), "chunk_size is 1.5, expected a whole number of at least 1"),
        (dict(rate=torch.zeros(3, device="meta")), "rate on meta, .*; expected one device"),
        (dict(rate=torch.zeros(4)), r"got rate \(4,\); expected \(h,\) = \(3,\)"),
        (dict(rate=torch.tensor([0.1, -0.1, 0.2])), "expected none negative, NaN or infinite"),
        (dict(rate=torch.tensor([0.1, torch.nan, 0.2])), "expected none negative, NaN or infinite"),
        (dict(rate=torch.tensor([0.1, torch.inf, 0.2])), "expected none negative, NaN or infinite"),
        (dict(q=torch.zeros(2, 3, 17, 6).double()), r"q \(2, 3, 17, 6\)"),
        (dict(q=torch.zeros(2, 3, 17).double()), "expected four axes"),
        (dict(state=torch.zeros(2, 3, 5, 5)), r"expected \(b, h, dk, dv\) = \(2, 3, 5, 7\)"),
    ],
)
def test_bad_operands_are_named(change, sentence):
    q, k, v, state = operands()
    given = dict(q=q, k=k, v=v, rate=torch.full((H,), 0.1), state=state) | change
    with pytest.raises(ValueError, match=sentence):
        linear_attention(**given)


@pytest.mark.bad_input
def test_mixed_and_whole_number_types_are_refused():
    q, k, v, _ = operands()
    rate = torch.full((H,), 0.1)
    with pytest.raises(TypeError, match="one floating type for all three"):
        linear_attention(q, k, v.float(), rate)
    with pytest.raises(TypeError, match="one floating type for all three"):
        linear_attention(q.int(), k.int(), v.int(), rate)
    with pytest.raises(TypeError, match="expected a floating type"):
        linear_attention(q, k, v, rate.int())
    with pytest.raises(TypeError, match=r"got state of type torch.int64; expected a floating type"):
        linear_attention(q, k, v, rate, state=torch.zeros(B, H, DK, DV).long())
    empty = [x[:, :, :0] for x in (q, k, v)]
    with pytest.raises(ValueError, match="at least one token"):
        linear_attention(*empty, rate)


@pytest.mark.bad_input
@pytest.mark.parametrize("operator", [linear_attention, lightning_attention])
@pytest.mark.parametrize("change", [torch.Tensor.tolist, torch.Tensor.numpy, lambda _: None])
@pytest.mark.parametrize("name", ["q", "k", "v", "rate"])
def test_what_is_no_tensor_is_named(operator, change, name):
    q, k, v, _ = operands()
    given = dict(q=q, k=k, v=v, rate=torch.full((H,), 0.1))
    given[name] = change(given[name])
    kind = type(given[name]).__name__
    with pytest.raises(TypeError, match=f"{name} is a {kind}, expected a tensor: torch.as_tensor"):
        operator(**given)


@pytest.mark.bad_input
@pytest.mark.parametrize("operator", [softmax_weights, softmax_attention, linear_weights])
def test_lists_are_named_by_the_maps_too(operator):
    q = operands()[0].tolist()
    with pytest.raises(TypeError, match="q is a list, expected a tensor"):
        operator(q, q, q) if operator is not softmax_weights else operator(q, q)


def test_a_gradient_costs_no_more_memory_per_token_for_a_longer_text():
    """Slices instead of splits would fill a tensor of length n for every chunk: n^2 in all."""

    def written(n):
        q, k, v = (torch.randn(1, 1, n, 8, requires_grad=True) for _ in "qkv")
        o = linear_attention(q, k, v, torch.tensor([0.1]), chunk_size=16)
        with torch.profiler.profile(profile_memory=True) as seen:
            o.sum().backward()
        return sum(max(e.self_cpu_memory_usage, 0) for e in seen.events())

    assert written(1024) < 4.5 * written(256)
