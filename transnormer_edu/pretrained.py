"""Open a folder without knowing which of the models is in it."""

from pathlib import Path

import torch

from transnormer_edu.checkpoint import read_config
from transnormer_edu.model import LanguageModel, TransNormerLLM
from transnormer_edu.transformer import Transformer

MODELS = {"transnormer": TransNormerLLM, "softmax_baseline": Transformer}


def load_pretrained(folder: str | Path, dtype: torch.dtype | None = None) -> LanguageModel:
    """`from_pretrained` of the model that config.json names by its model_type."""
    kind = read_config(folder).get("model_type", "transnormer")
    if kind not in MODELS:
        raise ValueError(f"{folder}: model_type is {kind!r}, expected one of {', '.join(MODELS)}")
    return MODELS[kind].from_pretrained(folder, dtype)
