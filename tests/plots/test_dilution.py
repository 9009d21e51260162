import numpy as np
import pytest
import torch

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.decay import decay_mask
from transnormer_edu.dilution import local_mass
from transnormer_edu.plots.dilution import (
    SHARES,
    local_masses,
    local_masses_mover,
    map_grid,
    masses_of_heads,
    one_against_all,
)

FLAT = torch.ones(10, 10).tril()
NEAR = decay_mask(torch.tensor([5.0]), 10)[0]


def maps(layers, heads, n=6):
    draw = torch.Generator().manual_seed(0)
    return torch.rand(layers, heads, n, n, generator=draw).tril()


def test_curves_of_local_mass():
    figure, sentence = assert_readable(local_masses({"level": FLAT, "near": NEAR}))
    expected = 100 * local_mass(NEAR, torch.tensor([0.4])).item()
    assert f"level: 40 %; near: {expected:.0f} %; flat: 40 %." in sentence and expected > 90
    axes = figure.axes[0]
    assert_told_apart_without_colour(axes)
    _, flat, near = axes.lines
    np.testing.assert_allclose(flat.get_ydata(), 100 * SHARES, rtol=1e-5)
    np.testing.assert_allclose(near.get_ydata(), 100 * local_mass(NEAR, SHARES), rtol=1e-5)


def test_a_curve_is_the_mean_over_all_maps():
    both = local_masses({"both": torch.stack([FLAT, NEAR])[:, None]})[0].axes[0].lines[1]
    one, other = (local_mass(weights, SHARES) for weights in (FLAT, NEAR))
    np.testing.assert_allclose(both.get_ydata(), 50 * (one + other), rtol=1e-5)


def test_curves_that_move_and_say_what_they_show():
    figure, move = local_masses_mover({0.0: {"a": FLAT}, 0.5: {"a": NEAR}})
    line = figure.axes[0].lines[1]
    before = line.get_ydata().copy()
    expected = 100 * local_mass(NEAR, torch.tensor([0.4])).item()
    assert move(0.5) == f"At 0.5, mass in the nearest 40 %: a: {expected:.0f} %; flat: 40 %."
    np.testing.assert_allclose(line.get_ydata(), 100 * local_mass(NEAR, SHARES), rtol=1e-5)
    move(0.0)
    np.testing.assert_allclose(line.get_ydata(), before)


def test_one_that_fits():
    masses = {"sharp": [0.9, 0.5], "blunt": [0.75, 0.003]}
    figure, sentence = assert_readable(one_against_all([2, 1024], masses))
    assert "from 2 to 1,024 tokens: sharp 90 % → 50.0 %; blunt 75 % → 0.3 %." in sentence
    assert_told_apart_without_colour(figure.axes[0])
    assert list(figure.axes[0].lines[1].get_ydata()) == pytest.approx([75, 0.3])


def test_every_map_has_its_place():
    models = {"one": maps(2, 3), "two": -maps(2, 3)}
    figure, sentence = map_grid(models)
    assert "Maps of 2 layers (down) and 3 heads (across), 6 tokens each" in sentence
    assert [block.get_suptitle() for block in figure.subfigs] == ["one", "two"]
    panels = figure.subfigs[1].axes
    weights = models["two"][1, 2]
    shown = np.ma.filled(panels[5].images[0].get_array(), np.nan)
    expected = (weights / weights.sum(-1, keepdim=True)).numpy()
    np.testing.assert_allclose(shown[np.tril_indices(6)], expected[np.tril_indices(6)], rtol=1e-5)
    assert np.isnan(shown[np.triu_indices(6, 1)]).all()
    assert figure.subfigs[0].get_supxlabel() == "head (number)"
    assert figure.subfigs[0].get_supylabel() == "layer (number)"
    assert [axes.get_xlabel() for axes in panels[3:]] == ["1", "2", "3"]
    assert [axes.get_ylabel() for axes in panels[::3]] == ["0", "1"]


def test_every_head_has_a_line_and_their_mean_is_thick():
    weights = maps(2, 3)
    figure, sentence = assert_readable(masses_of_heads({"model": weights[:, None]}))
    _, *heads, mean = figure.axes[0].lines
    assert len(heads) == 6
    assert mean.get_linewidth() > 2 * heads[0].get_linewidth()
    np.testing.assert_allclose(heads[4].get_ydata(), 100 * local_mass(weights[1, 1], SHARES))
    expected = 100 * local_mass(weights, SHARES).mean((0, 1))
    np.testing.assert_allclose(mean.get_ydata(), expected, rtol=1e-5)
    assert f"model: {expected[16]:.0f} %." in sentence


@pytest.mark.bad_input
def test_broken_input():
    with pytest.raises(ValueError, match="got 0 curves"):
        local_masses({})
    with pytest.raises(ValueError, match="got 0 curves"):
        local_masses_mover({})
    with pytest.raises(ValueError, match="got 5 curves"):
        one_against_all([1], {name: [0.1] for name in "abcde"})
    with pytest.raises(ValueError, match="same number"):
        one_against_all([1, 2], {"a": [0.1]})
    with pytest.raises(ValueError, match="expected one size"):
        map_grid({"a": maps(2, 3), "b": maps(3, 2)})
    with pytest.raises(ValueError, match="expected one size"):
        map_grid({})
    with pytest.raises(ValueError, match="at least one"):
        masses_of_heads({})
