"""LRPE: the score depends on the distance alone, at any offset, in any type."""

import math

import pytest
import torch

from transnormer_edu.lrpe import LRPE, frequency_ladder, lrpe


def test_ladder_runs_over_all_heads():
    theta = frequency_ladder(3, 5)
    assert theta.shape == (3, 1, 5)
    for head in range(3):
        for feature in range(5):
            j = head * 5 + feature
            assert math.isclose(theta[head, 0, feature], 10000 ** (-2 * j / 15), rel_tol=1e-6)
    assert frequency_ladder(8, 128).min() == pytest.approx(1e-8, rel=0.02)


@pytest.mark.parametrize("offset", [0, 7, 100_003])
def test_score_is_a_cosine_of_the_distance(offset):
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 11, 5, generator=draw, dtype=torch.float64) for _ in "qk")
    theta = frequency_ladder(3, 5).double() * 1.3
    position = torch.arange(11) + offset
    score = lrpe(q, theta, position) @ lrpe(k, theta, position).transpose(-1, -2)
    for t, s in [(0, 0), (4, 1), (10, 3), (2, 9)]:
        expected = (q[:, :, t] * k[:, :, s] * torch.cos(theta[:, 0] * (t - s))).sum(-1)
        torch.testing.assert_close(score[:, :, t, s], expected, rtol=1e-8, atol=1e-8)


def test_rows_may_stand_at_different_positions():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    theta = frequency_ladder(3, 5)
    position = torch.tensor([[3, 4, 5, 6], [0, 1, 2, 3]])
    out = lrpe(x, theta, position)
    for row in range(2):
        torch.testing.assert_close(out[row], lrpe(x[row, None], theta, position[row])[0])


def test_bfloat16_positions_beyond_256_stay_apart():
    x = torch.ones(1, 1, 2, 4, dtype=torch.bfloat16)
    theta = frequency_ladder(1, 4)
    out = lrpe(x, theta, torch.tensor([256, 257]))
    assert out.dtype == torch.bfloat16
    assert not torch.equal(out[:, :, 0], out[:, :, 1])
    exact = lrpe(x.double(), theta.double(), torch.tensor([256, 257]))
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=4e-3)


@pytest.mark.bad_input
def test_shapes_that_do_not_fit_are_named():
    x, theta, position = torch.ones(2, 3, 7, 4), torch.ones(3, 1, 4), torch.arange(7)
    rows = position.repeat(3, 1)  # 3 rows of positions for 2 rows of x
    for given in (
        (x[0], theta, position), (x, theta[:2], position), (x, theta, position[:5]),
        (x, theta, rows), (x, theta, position[None, None]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"expected \(b, h, n, d\), \(h, 1, d\), \(n,\) or"):
            lrpe(*given)
    with pytest.raises(TypeError, match="x is a list, expected a tensor"):
        lrpe(x.tolist(), theta, position)


def test_theta_is_learned():
    layer = LRPE(2, 3)
    x = layer(torch.randn(1, 2, 5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5))
    (x[:, :, 0] * x[:, :, 3]).sum().backward()  # a score between two positions
    assert (layer.theta.grad != 0).all()
