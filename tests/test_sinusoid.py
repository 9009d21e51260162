"""The sinusoid, value by value, and what of it reaches a model's first block."""

import math

import torch

from tests.models import linear, tokens
from transnormer_edu.sinusoid import add_sinusoid


def test_each_feature_is_a_sine_or_a_cosine_of_its_angle():
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    added = add_sinusoid(x, torch.tensor([4, 5, 100_003])) - x
    for row, t in enumerate((4, 5, 100_003)):
        angles = [t * 10000 ** (-2 * j / 6) for j in range(3)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        for text in range(2):
            close = dict(rtol=0, atol=1e-10)  # in float64, as x is
            torch.testing.assert_close(
                added[text, row], torch.tensor(expected, dtype=torch.float64), **close
            )


def test_a_model_adds_it_once_to_the_scaled_embedding():
    seen = []
    model, ids = linear(absolute_position=True), tokens(2, 5)
    model.model["layers"][0].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
    _, state = model(ids, return_state=True)
    model(ids, state=state)  # five tokens later
    embedded = math.sqrt(18) * model.model["embed_tokens"].weight[ids]
    for x, first in zip(seen, (0, 5), strict=True):
        position = torch.arange(first, first + 5).expand(2, 5)
        torch.testing.assert_close(x, add_sinusoid(embedded, position))
    assert len(seen) == 2
