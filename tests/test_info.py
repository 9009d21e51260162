"""Counts against the facts and against a model that is really there."""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.models import linear, softmax, tokens
from transnormer_edu import TransNormerConfig
from transnormer_edu.info import describe, summarise


def test_the_385m_model():
    summary = summarise(TransNormerConfig.preset("385m"))
    assert summary.parameters == 398_984_192
    assert summary.embedding == 64000 * 1024
    # One layer's q and k are doubled by LRPE: 25 states of 8 heads, 128 x 128.
    assert summary.state_bytes == 25 * 8 * 128 * 128 * 4
    assert summary.shapes["model.layers.23.channel_mixer.l3.weight"] == (1024, 2816)


def test_state_and_matrix_flops_are_those_of_a_real_model():
    model = linear()
    _, state = model(tokens(1, 5), return_state=True)
    summary = summarise(model.config)
    assert summary.state_numbers == sum(layer.numel() for layer in state.layers)
    with FlopCounterMode(display=False) as counter:
        model(tokens(1, 1), state=state)
    # One token: its products with every matrix, reading the state (2 of our 4 per number of the
    # state are the update, a sum of outer products that only happens when it is kept), and the
    # token with itself.
    own = 2 * sum(dk + dv for _, _, dk, dv in (layer.shape for layer in state.layers)) * 3
    counted = counter.get_total_flops()
    assert summary.flops - 2 * summary.state_numbers <= counted <= summary.flops + own


def test_cache_and_flops_are_those_of_a_real_softmax_model():
    model, past = softmax(), 6
    _, state = model(tokens(1, past), return_state=True)
    summary = summarise(model.config)
    held = sum(cache.k.numel() + cache.v.numel() for cache in state.layers)
    assert (summary.state_numbers, summary.cache_numbers * past) == (0, held)
    # The fused attention of a CPU is not counted, the same one written out is.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens(1, 1), state=state)
    seen = past + 1  # a token looks at itself as well
    assert counter.get_total_flops() == summary.flops + seen * summary.past_flops


@pytest.mark.parametrize("name", ["385m", "15b", "175b"])
def test_the_page_names_every_kind_of_tensor(name):
    page = describe(TransNormerConfig.preset(name))
    for part in (
        "embed_tokens",
        "lrpe.theta",
        "out_proj",
        "l1",
        "l2",
        "l3",
    ):
        assert part in page
    last = TransNormerConfig.preset(name).layers - 1
    assert f"[0-{last}].channel_mixer.l3" in page
