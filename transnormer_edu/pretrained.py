"""Open a folder without knowing which of the models is in it."""

from pathlib import Path

import torch

from transnormer_edu import check
from transnormer_edu.model import LanguageModel, TransNormerLLM
from transnormer_edu.released_config import read_config
from transnormer_edu.transformer import Transformer

MODELS = {model.config_class.model_type: model for model in (TransNormerLLM, Transformer)}


def load_pretrained(folder: str | Path, dtype: torch.dtype | str | None = None) -> LanguageModel:
    """`from_pretrained` of the model that config.json names by its model_type."""
    kind = read_config(folder).get("model_type", TransNormerLLM.config_class.model_type)
    check.one_of(f"{folder}/config.json: model_type", kind, MODELS)
    return MODELS[kind].from_pretrained(folder, dtype)
