"""The small run of the training tests."""

import torch

from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.settings import TrainSettings
from transnormer_edu.tokenizer import Tokenizer

BYTES = Tokenizer.of_bytes()
SIZES = {"vocab_size": 259, "dim": 14, "layers": 2, "heads": 2, "hidden_dim": 10, "glu_dim": 22}
QUICK = TrainSettings(
    steps=9, batch_size=4, context=16, warmup=3, eval_every=4, eval_windows=5, save_every=2,
    accumulate=2, learning_rate=1e-2, device="cpu", clip=0.7,
)  # fmt: skip


def new_model():
    torch.manual_seed(0)
    return TransNormerLLM(TransNormerConfig(**SIZES))
