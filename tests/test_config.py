"""Published sizes to the unit, and choices that cannot work."""

import numpy as np
import pytest
import torch

from transnormer_edu import TransNormerConfig, TransNormerLLM

# The released ones are the facts page's; the others its formula L(4d^2 + d^2 + 3dg) + Vd + d.
PARAMETERS = {
    "385m": 398_984_192,
    "1b": 1_020_266_496,
    "3b": 2_911_111_680,
    "7b": 6_836_719_616,
    "15b": 14_833_382_400,
    "13b": 36 * (5 * 5120**2 + 3 * 5120 * 13824) + 64001 * 5120,
    "65b": 72 * (5 * 8192**2 + 3 * 8192 * 22016) + 64001 * 8192,
    "175b": 88 * (5 * 12288**2 + 3 * 12288 * 32768) + 64001 * 12288,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_presets(name):
    with torch.device("meta"):
        model = TransNormerLLM(TransNormerConfig.preset(name))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert model.config.head_dim == 128


def test_a_preset_can_be_changed():
    config = TransNormerConfig.preset("385M", dim=256, layers=2)
    assert (config.dim, config.hidden_dim, config.layers, config.heads) == (256, 256, 2, 8)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(heads=5), "5 heads do not divide hidden_dim 12"),
        (dict(heads=0), "heads is 0, expected a whole number of at least 1"),
        (dict(dim=-4), "dim is -4"),
        (dict(layers=2.0), "layers is 2.0"),
        (dict(activation="silly"), "activation is 'silly', expected one of silu, swish"),
        (dict(glu_activation="tanh"), "glu_activation is 'tanh'"),
        (dict(norm="batch"), "norm is 'batch'"),
        (dict(decay="learned"), "decay is 'learned', expected one of released, paper, flat, none"),
        (dict(norm=["simplermsnorm"]), "norm is .* expected one of simplermsnorm"),
        (dict(gate=0), "gate is 0, expected 'full', 'none' or a rank"),
        (dict(lrpe_layers=(3,)), "lrpe_layers names layer 3, expected 0 to 2"),
        (dict(absolute_position=1), "absolute_position is 1, expected True or False"),
        (dict(absolute_position=True, dim=9, heads=3), "dim is 9; expected an even one"),
        (dict(eos_token_id=40), "eos_token_id is 40, expected a token below vocab_size 40"),
        (dict(init_std=float("nan")), "init_std is nan"),
    ],
)
def test_choices_that_cannot_work_are_named(change, sentence):
    sizes = dict(vocab_size=40, dim=12, layers=3, heads=2)
    with pytest.raises(ValueError, match=sentence):
        TransNormerConfig(**sizes | change)


@pytest.mark.bad_input
def test_words_are_no_way_to_quantise():
    with pytest.raises(TypeError, match="quantization is a str, expected a GPTQFormat"):
        TransNormerConfig(40, 12, 3, 2, quantization="4bit")


@pytest.mark.bad_input
def test_an_unknown_preset_is_answered_with_the_list():
    with pytest.raises(ValueError, match="no preset '2b'; there are 385m, 1b, 3b, 7b"):
        TransNormerConfig.preset("2b")
    with pytest.raises(ValueError, match="no preset 7"):
        TransNormerConfig.preset(7)


@pytest.mark.bad_input  # numpy's numbers are no `int` to the type checker
def test_sizes_become_pythons_own_numbers():
    sizes = dict(vocab_size=np.int64(40), dim=np.int32(12), layers=3, heads=2, gate=np.int64(4))
    config = TransNormerConfig(**sizes)
    assert {type(config.vocab_size), type(config.dim), type(config.gate)} == {int}
    assert TransNormerLLM(config).model["layers"][0].token_mixer.u_proj
