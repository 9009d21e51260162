"""Local mass and windows against sums written out; a model's maps against its own output."""

import csv
import math

import pytest
import torch
from einops import rearrange

from tests.models import linear, softmax, tokens
from transnormer_edu.attention import linear_weights
from transnormer_edu.decay import decay_mask, window
from transnormer_edu.dilution import (
    attention_maps,
    attention_mass,
    effective_window,
    local_mass,
    mass_by_age,
    mixer_map,
    save_map,
)

N = 17


def signed_map(*batch):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(*batch, N, N, generator=draw, dtype=torch.float64).tril()


def test_mass_is_each_rows_share_of_absolute_values():
    weights = torch.tensor([[2.0, 0.0, 0.0], [-1.0, 3.0, 0.0], [1.0, 2.0, -3.0]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [1 / 4, 3 / 4, 0.0], [1 / 6, 1 / 3, 1 / 2]])
    torch.testing.assert_close(attention_mass(weights), expected)
    by_age = torch.tensor([[1.0, 0.0, 0.0], [3 / 4, 1 / 4, 0.0], [1 / 2, 1 / 3, 1 / 6]])
    torch.testing.assert_close(mass_by_age(weights), by_age)


def test_local_mass_counts_the_nearest_tokens():
    """Share 2/5 of 5 tokens are 2 tokens; of 4 tokens 1.6, so one whole and 0.6 of the next."""
    weights = signed_map(2, 3)[..., :5, :5]
    got = local_mass(weights, torch.tensor([0.4, 1.0], dtype=torch.float64))
    rows = []
    for t in range(5):
        near = [abs(weights[..., t, t - age]) for age in range(t + 1)]
        whole, part = int(0.4 * (t + 1)), 0.4 * (t + 1) % 1
        inside = sum(near[:whole], torch.zeros(2, 3)) + part * near[whole]
        rows.append(inside / sum(near))
    torch.testing.assert_close(got[..., 0], sum(rows) / 5)
    torch.testing.assert_close(got[..., 1], torch.ones(2, 3, dtype=torch.float64))


def test_a_flat_map_has_the_share_itself():
    shares = torch.tensor([0.0, 0.07, 0.3, 0.5, 0.99, 1.0])
    torch.testing.assert_close(local_mass(torch.ones(N, N).tril(), shares), shares)


def test_local_mass_of_decay_is_a_geometric_sum():
    """Of m nearest among n tokens: (1 - lambda^m) / (1 - lambda^n)."""
    rate = torch.tensor([0.1, 0.7], dtype=torch.float64)
    last = mass_by_age(decay_mask(rate, N))[:, -1, :4].sum(-1)
    torch.testing.assert_close(last, -torch.expm1(-4 * rate) / -torch.expm1(-N * rate))


def test_rows_of_zeros_are_left_out():
    weights = torch.ones(3, 3).tril()
    weights[1] = 0
    torch.testing.assert_close(local_mass(weights, torch.tensor([0.5])), torch.tensor([0.5]))
    assert effective_window(weights).isnan().tolist() == [False, True, False]


def test_the_effective_window_of_decay_is_its_window():
    rate = 1 / torch.tensor([2.0, 5.0, 30.0], dtype=torch.float64)
    last = effective_window(decay_mask(rate, 700))[:, -1]
    torch.testing.assert_close(last, window(rate), rtol=0.02, atol=0)
    flat = effective_window(torch.ones(N, N, dtype=torch.float64).tril())
    torch.testing.assert_close(flat, (1 - 1 / math.e) * torch.arange(1.0, N + 1).double())


@pytest.mark.bad_input
@pytest.mark.parametrize("broken", [torch.ones(4, 4), torch.ones(3, 4), torch.ones(4)])
def test_only_causal_square_maps(broken):
    with pytest.raises(ValueError, match=r"future|expected \(\.\.\., n, n\)"):
        attention_mass(broken)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_shares_lie_between_0_and_1(share):
    with pytest.raises(ValueError, match="expected each from 0 to 1"):
        local_mass(torch.ones(2, 2).tril(), torch.tensor([0.5, share]))


@pytest.mark.parametrize("make, inside", [(linear, "norm"), (softmax, "out_proj")])
def test_the_maps_give_the_layers_own_output(make, inside):
    """o = A v, for every layer and head: what enters the norm (GLA), or the output projection."""
    model, given, outputs = make(), [], []
    for layer in model.model["layers"]:
        mixer = layer.token_mixer
        mixer.register_forward_pre_hook(lambda _, args: given.append(args[:2]))
        getattr(mixer, inside).register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    ids = tokens(2, N)
    maps = attention_maps(model, ids)
    assert len(maps) == len(outputs) == 3
    for weights, o, layer, (x, position) in zip(
        maps, outputs, model.model["layers"], given, strict=True
    ):
        v = layer.token_mixer.project(x, position)[2]
        torch.testing.assert_close(rearrange(weights @ v, "b h n e -> b n (h e)"), o)
        torch.testing.assert_close(mixer_map(layer.token_mixer, x, position), weights)


def test_maps_of_linear_attention_keep_their_signs_and_decay():
    model = linear()
    maps = attention_maps(model, tokens(2, N))
    assert (maps[1] < 0).any() and (maps[1] > 0).any()
    mixer = model.model["layers"][1].token_mixer
    x = torch.randn(2, N, 18, dtype=torch.float64)
    q, k, *_ = mixer.project(x, torch.arange(N))
    torch.testing.assert_close(
        mixer_map(mixer, x, torch.arange(N)),
        linear_weights(q, k, mixer.rate * 0) * decay_mask(mixer.rate, N),
    )


def test_reading_maps_leaves_the_model_as_it_was():
    model = linear()
    attention_maps(model, tokens(1, 4))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_map_and_its_local_mass_as_csv(tmp_path):
    weights, tokens = torch.tensor([[2.0, 0.0], [-1.0, 3.0]]), ["a,", 'b"']
    map_file, mass_file = save_map(tmp_path / "new", "x", weights, tokens)
    assert (map_file.name, mass_file.name) == ("x_map.csv", "x_local_mass.csv")
    with open(map_file, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["t", "token t", "s", "token s", "age (tokens)", "weight", "mass"]
    assert rows == [
        ["1", "a,", "1", "a,", "0", "2", "1"],
        ["2", 'b"', "1", "a,", "1", "-1", "0.25"],
        ["2", 'b"', "2", 'b"', "0", "3", "0.75"],
    ]
    with open(mass_file, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["share of tokens", "local mass"]
    assert (len(rows), rows[10], rows[20]) == (21, ["0.50", "0.625"], ["1.00", "1"])


@pytest.mark.bad_input
def test_csv_refuses_wrong_names(tmp_path):
    with pytest.raises(ValueError, match="got 1 tokens for a map of 2"):
        save_map(tmp_path, "x", torch.ones(2, 2).tril(), ["a"])
    with pytest.raises(ValueError, match="without folders"):
        save_map(tmp_path, "../x", torch.ones(2, 2).tril(), ["a", "b"])
