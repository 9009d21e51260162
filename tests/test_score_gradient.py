"""The part of dilution.py that looks at gradients by the scores."""

import math

import pytest
import torch

from transnormer_edu.dilution import gradient_spread, score_gradient

H, N, DV = 2, 5, 3


def operands():
    draw = torch.Generator().manual_seed(0)
    shapes = [(H, N, N), (H, N, DV), (H, N, DV)]
    return [torch.randn(*s, generator=draw, dtype=torch.float64) for s in shapes]


def test_without_a_denominator_it_is_the_value_along_the_direction():
    score, v, towards = operands()
    gradient = score_gradient(lambda z, v: z.tril() @ v, score, v, towards)
    expected = [towards[i, t] @ v[i, s] for i in range(H) for t in range(N) for s in range(t + 1)]
    assert gradient.tolist() == pytest.approx([float(x) for x in expected])


def test_shares_of_a_sum_reach_the_bound_of_a_quarter_over_the_score():
    def read(z, v):
        return (z.tril() / z.tril().sum(-1, keepdim=True)) @ v

    score, v = torch.full((2, 2), 0.01), torch.tensor([[1.0], [0.0]])
    gradient = score_gradient(read, score, v, torch.tensor([[0.0], [1.0]]))
    assert gradient.tolist() == pytest.approx([0, 25, -25])


def test_the_scores_of_the_caller_stay_as_they_are():
    score, v, towards = operands()
    score_gradient(lambda z, v: z.tril() @ v, score, v, towards)
    assert not score.requires_grad
    assert score.grad is None


def test_spread():
    assert gradient_spread(torch.tensor([2.0, -2.0, 2.0])) == 0
    assert gradient_spread(torch.tensor([0.0, 0.0, 0.0, -4.0])) == pytest.approx(2)
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert gradient_spread(normal) == pytest.approx(math.sqrt(math.pi / 2 - 1), rel=0.01)
