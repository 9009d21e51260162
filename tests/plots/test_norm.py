import math

import pytest
import torch

from tests.plots.checks import assert_readable
from transnormer_edu.norm import srmsnorm
from transnormer_edu.plots.norm import gradient_mover, gradients, head_sizes, in_the_plane


def test_points_before_and_after():
    points = torch.tensor([[3.0, 4.0], [0.3, -0.4]])
    figure, sentence = assert_readable(
        in_the_plane(points, {"S": srmsnorm(points), "as is": points})
    )
    assert sentence.endswith("S 1.41 to 1.41; as is 0.50 to 5.00.")
    before, after = figure.axes[0].lines[:2]
    assert before.get_xydata().tolist() == points.tolist()
    assert after.get_xydata() == pytest.approx(srmsnorm(points).numpy())
    assert before.get_marker() != after.get_marker()
    for broken in ({}, {"S": points[:1]}):
        with pytest.raises(ValueError, match="expected norms of"):
            in_the_plane(points, broken)


def test_a_gradient_loses_what_points_along_y():
    x = torch.tensor([2.4, 1.8], dtype=torch.float64)
    figure, sentence = assert_readable(gradients(x, (0, 60, 90)))
    assert sentence.endswith("0 % at 0°, 87 % at 60°, 100 % at 90°.")
    leaf = x.clone().requires_grad_()
    y = srmsnorm(leaf)
    for axes in figure.axes:
        dy, dx = (line.get_xydata() for line in axes.lines[-2:])
        assert dy[0] == pytest.approx(y.detach().numpy())
        (expected,) = torch.autograd.grad(y, leaf, torch.tensor(dy[1] - dy[0]), retain_graph=True)
        rho = float(y.detach().norm() / x.norm())
        assert dx[1] - dx[0] == pytest.approx(expected.numpy() / rho, abs=1e-9)
    with pytest.raises(ValueError, match="got 0 directions"):
        gradients(x, ())


def test_the_mover_turns_the_gradient():
    figure, move = gradient_mover(torch.tensor([2.4, 1.8]))
    assert move(30) == "dy at 30° to y: 50 % of it is passed on."
    dy = figure.axes[0].lines[-2].get_xydata()
    angle = math.degrees(math.atan2(*(dy[1] - dy[0])[::-1]) - math.atan2(1.8, 2.4))
    assert angle == pytest.approx(30, abs=1e-4)


def test_head_sizes():
    figure, sentence = assert_readable(head_sizes({"one": [1.0, 4.0], "each": [2.0, 2.0]}))
    assert sentence.endswith("one 4; each 1.")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 4, 2, 2]
    assert len({bar.get_hatch() for bar in figure.axes[0].patches}) == 2
    assert figure.axes[0].get_xticks().tolist() == [1, 2]  # heads are counted from 1
    with pytest.raises(ValueError, match="one has 1, each has 2"):
        head_sizes({"one": [1.0], "each": [2.0, 2.0]})
    with pytest.raises(ValueError, match="got 0 norms"):
        head_sizes({})
