"""Small models for the tests: sizes odd and different, weights far from initialisation."""

import torch

from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.transformer import Transformer, TransformerConfig

VOCABULARY = 37


def randomised(model, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    for parameter in model.to(dtype).parameters():
        noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        parameter.data += (0.2 * noise).to(dtype)
    return model


def linear(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    sizes = dict(vocab_size=VOCABULARY, dim=18, layers=3, heads=3, glu_dim=22, lrpe_layers=(0, 2))
    return randomised(TransNormerLLM(TransNormerConfig(**sizes | changes)), dtype)


def softmax(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    sizes = dict(vocab_size=VOCABULARY, dim=20, layers=3, heads=5, glu_dim=22)
    return randomised(Transformer(TransformerConfig(**sizes | changes)), dtype)


def tokens(*shape, seed=0):
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def thin_gate(dtype=torch.float64):
    return linear(dtype, decay="none", gate=4, absolute_position=True)


def absolute(dtype=torch.float64):
    return softmax(dtype, position="absolute", mlp="sglu")


BOTH = {
    "linear": linear,
    "linear, no decay, thin gate, absolute": thin_gate,
    "softmax, rope": softmax,
    "softmax, absolute": absolute,
}
