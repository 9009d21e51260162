"""config.json: sizes and choices, as the released models write them, and as this package does.

    TransNormerLLM     what our fields' defaults are
    TransNormerLLM2    the same names and tensors, but the mixers of a block side by side
    TransNormerLLM3    a gate of rank 16

Nothing in a folder of TransNormerLLM2 tells it from one of the first series, and the parameter
names of TransNormerLLM3 were not seen. So a reader says which it is: `variant`.
"""

import json
import re
from dataclasses import MISSING, asdict, fields
from pathlib import Path

from transnormer_edu import check, hub
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.gptq import METHOD, GPTQFormat

# What each series has that the first has not.
VARIANTS = {
    "transnormerllm": {},
    "transnormerllm2": {"block": "parallel"},
    "transnormerllm3": {"gate": 16},
}

# Our field -> the released config's. What the original code does not know keeps our own name.
RELEASED = {
    "vocab_size": "vocab_size",
    "dim": "decoder_embed_dim",
    "layers": "decoder_layers",
    "heads": "decoder_attention_heads",
    "glu_dim": "glu_dim",
    "hidden_dim": "hidden_dim",
    "activation": "linear_act_fun",
    "norm": "norm_type",
    "init_std": "init_std",
    "pad_token_id": "pad_token_id",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "gate": "gate",
    "glu_activation": "glu_activation",
    "decay": "decay",
}
MOST_LAYERS = 1000  # a list is not made for more: a config may say any number
NEEDED = ("vocab_size", "dim", "layers", "heads", "glu_dim")


def config_to_json(config) -> dict:
    """The config as the released models write it."""
    if not isinstance(config, TransNormerConfig):
        return {"model_type": config.model_type, **asdict(config)}
    named = {theirs: getattr(config, ours) for ours, theirs in RELEASED.items()}
    if config.absolute_position:  # no released config has this: it is written only where it is used
        named["absolute_position"] = True
    if config.block != "sequential":
        named["block"] = config.block
    if config.quantization is not None:
        named["quantization_config"] = {"quant_method": METHOD} | asdict(config.quantization)
    return named | {
        "model_type": config.model_type,
        "architectures": ["TransnormerForCausalLM"],
        "linear_use_lrpe_list": [int(i in config.lrpe_layers) for i in range(config.layers)],
        "no_scale_embedding": not config.scale_embedding,
        "bias": False,
        "tie_word_embeddings": True,
    }


def config_from_json(
    config_class, given: dict, where: str = "config.json", variant: str | None = None
):
    """The inverse of `config_to_json`; a field that is needed and missing is named.

    variant    one of `VARIANTS`, for a config that does not say of which series it is
    """
    kind = given.get("model_type", config_class.model_type)
    if kind != config_class.model_type:
        raise ValueError(
            f"{where}: model_type is {kind!r}, expected {config_class.model_type!r}: this is "
            "another kind of model"
        )
    if config_class is not TransNormerConfig:
        return _in_our_names(config_class, given, where)
    _demand(where, given, [RELEASED[field] for field in NEEDED])
    if given.get("bias"):
        raise ValueError(f"{where} says bias: true; the released models, and this one, have none")
    ours = {f: given[theirs] for f, theirs in RELEASED.items() if given.get(theirs) is not None}
    ours |= {f: given[f] for f in ("absolute_position", "block") if f in given}
    ours |= _of_variant(ours, variant, where)
    ours["quantization"] = _quantization(given.get("quantization_config"), where)
    if "linear_use_lrpe_list" in given:
        ours["lrpe_layers"] = _lrpe_layers(given, where)
    unscaled = given.get("no_scale_embedding", False)
    if not isinstance(unscaled, bool):
        raise ValueError(f"{where}: no_scale_embedding is {unscaled!r}, expected true or false")
    return _made(TransNormerConfig, ours | {"scale_embedding": not unscaled}, where)


def _in_our_names(config_class, given: dict, where: str):
    """The config of another model than TransNormerLLM: its file has our own fields."""
    _demand(where, given, [f.name for f in fields(config_class) if f.default is MISSING])
    ours = {f.name: given[f.name] for f in fields(config_class) if f.name in given}
    return _made(config_class, ours, where)


def _lrpe_layers(given: dict, where: str) -> tuple[int, ...]:
    """The layers with LRPE, from a list with one 0 or 1 for each layer.

    The original code takes an empty list, too: then linear_use_lrpe goes for all layers.
    """
    flags = given["linear_use_lrpe_list"]
    layers = check.whole(f"{where}: decoder_layers", given["decoder_layers"])
    if flags == [] and "linear_use_lrpe" in given and layers <= MOST_LAYERS:
        flags = [given["linear_use_lrpe"]] * layers
    if not isinstance(flags, list) or any(flag not in (0, 1) for flag in flags):
        raise ValueError(f"{where}: linear_use_lrpe_list is {flags!r}, expected a list of 0, 1")
    if len(flags) != layers:
        raise ValueError(
            f"{where}: linear_use_lrpe_list has {len(flags)} entries, expected one for each of "
            f"{layers} layers"
        )
    return tuple(i for i, flag in enumerate(flags) if flag)


def _of_variant(ours: dict, variant: str | None, where: str) -> dict:
    """The choices that make a config one of this variant; ValueError where it says otherwise."""
    if variant is None:
        return {}
    check.one_of("variant", variant, VARIANTS)
    for field, choice in VARIANTS[variant].items():
        if ours.get(field, choice) != choice:
            raise ValueError(
                f"{where} says {field} {ours[field]!r}, but variant {variant!r} has {choice!r}; "
                "leave the variant away"
            )
    return VARIANTS[variant]


def check_name(name: str, given: dict) -> None:
    """ValueError where a model's name tells of a later series, and nobody said which it is."""
    series = re.search(r"transnormerllm([23])", name.lower())
    if series and not {"block", "gate"} & given.keys():
        variant = f"transnormerllm{series[1]}"
        raise ValueError(
            f"{name} seems to be a {variant}, whose code this project has not seen; say "
            f"variant={variant!r} to read it as far as it is known ({VARIANTS[variant]}), or "
            "variant='transnormerllm' for the first series"
        )


def _quantization(given, where: str) -> GPTQFormat | None:
    """The format of 4-bit weights, from what AutoGPTQ writes; one sentence for other formats."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValueError(f"{where}: quantization_config is {given!r}, expected an object")
    for field, known in (("quant_method", METHOD), ("checkpoint_format", METHOD)):
        if given.get(field, known) != known:
            raise ValueError(
                f"{where}: quantization_config says {field} {given[field]!r}; only {known!r} is "
                "read here"
            )
    if "bits" not in given:
        raise ValueError(f"{where}: quantization_config lacks bits; expected 2, 4 or 8")
    named = {f.name: given[f.name] for f in fields(GPTQFormat) if f.name in given}
    return _made(GPTQFormat, named, f"{where}: quantization_config")


def _made(config_class, fields: dict, where: str):
    try:
        return config_class(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def read_config(folder: str | Path) -> dict:
    """config.json of a folder, as a dict; one sentence where there is none or it cannot be read.

    AutoGPTQ's quantize_config.json, where there is one, becomes its quantization_config.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no config.json in {folder}; expected a folder with a model in it"
            + hub.revisions(Path(folder))
        )
    given = _read_json(path)
    beside = path.with_name("quantize_config.json")
    if beside.is_file() and given.get("quantization_config") is None:
        given["quantization_config"] = _read_json(beside)
    return given


def _read_json(path: Path) -> dict:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON ({error}); copy or download it again") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds {type(given).__name__}, expected an object with fields")
    return given


def _demand(where: str, given: dict, needed: list[str]) -> None:
    absent = [name for name in needed if given.get(name) is None]
    if absent:
        raise ValueError(
            f"{where} lacks {', '.join(absent)}; expected it to give the model's sizes"
        )
