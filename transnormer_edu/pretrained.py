"""Open a folder without knowing which of the models is in it."""

from pathlib import Path

import torch

from transnormer_edu import check
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.model import LanguageModel, TransNormerLLM
from transnormer_edu.released_config import config_from_json, read_config
from transnormer_edu.transformer import Transformer, TransformerConfig

MODELS = {model.config_class.model_type: model for model in (TransNormerLLM, Transformer)}


def load_pretrained(folder: str | Path, dtype: torch.dtype | str | None = None) -> LanguageModel:
    """`from_pretrained` of the model that config.json names by its model_type."""
    folder = check.path("folder", folder)
    return _model(folder, read_config(folder)).from_pretrained(folder, dtype)


def config_of(folder: str | Path) -> TransNormerConfig | TransformerConfig:
    """The config of the model in `folder`, whichever of the two it is; weights are not read."""
    given = read_config(check.path("folder", folder))
    return config_from_json(_model(folder, given).config_class, given, f"{folder}/config.json")


def _model(folder: str | Path, given: dict) -> type[LanguageModel]:
    kind = given.get("model_type", TransNormerLLM.config_class.model_type)
    check.one_of(f"{folder}/config.json: model_type", kind, MODELS)
    return MODELS[kind]
