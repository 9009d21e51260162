"""Weights on disk, in the format of the released models.

    config.json                      sizes and choices
    model.safetensors                the weights; or pytorch_model.bin; or either in shards,
    *.index.json                     which name the file that each tensor is in

Reading executes nothing: .bin files are opened with `weights_only`. Writing is whole or not at all.
"""

import json
import zipfile
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.atomic import whole_folder
from transnormer_edu.config import TransNormerConfig

WEIGHTS = "model.safetensors"
WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

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
NEEDED = ("vocab_size", "dim", "layers", "heads", "glu_dim")


def config_to_json(config) -> dict:
    """The config as the released models write it."""
    if not isinstance(config, TransNormerConfig):
        return {"model_type": config.model_type, **asdict(config)}
    named = {theirs: getattr(config, ours) for ours, theirs in RELEASED.items()}
    if config.absolute_position:  # no released config has this: it is written only where it is used
        named["absolute_position"] = True
    return named | {
        "model_type": config.model_type,
        "architectures": ["TransnormerForCausalLM"],
        "linear_use_lrpe_list": [int(i in config.lrpe_layers) for i in range(config.layers)],
        "no_scale_embedding": not config.scale_embedding,
        "bias": False,
        "tie_word_embeddings": True,
    }


def config_from_json(config_class, given: dict, where: str = "config.json"):
    """The inverse of `config_to_json`; a field that is needed and missing is named."""
    kind = given.get("model_type", config_class.model_type)
    if kind != config_class.model_type:
        raise ValueError(
            f"{where}: model_type is {kind!r}, expected {config_class.model_type!r}: this is "
            "another kind of model"
        )
    if config_class is not TransNormerConfig:
        ours = {f.name: given[f.name] for f in fields(config_class) if f.name in given}
        needed = [f.name for f in fields(config_class) if f.default is MISSING]
        _demand(where, given, needed)
        return _made(config_class, ours, where)
    _demand(where, given, [RELEASED[field] for field in NEEDED])
    if given.get("bias"):
        raise ValueError(f"{where} says bias: true; the released models, and this one, have none")
    ours = {f: given[theirs] for f, theirs in RELEASED.items() if given.get(theirs) is not None}
    ours["absolute_position"] = given.get("absolute_position", False)
    check.whole(f"{where}: decoder_layers", given["decoder_layers"])
    if "linear_use_lrpe_list" in given:
        flags = given["linear_use_lrpe_list"]
        if not isinstance(flags, list):
            raise ValueError(f"{where}: linear_use_lrpe_list is {flags!r}, expected a list of 0, 1")
        if len(flags) != given["decoder_layers"]:
            raise ValueError(
                f"{where}: linear_use_lrpe_list has {len(flags)} entries, expected one for each of "
                f"{given['decoder_layers']} layers"
            )
        ours["lrpe_layers"] = tuple(i for i, flag in enumerate(flags) if flag)
    unscaled = given.get("no_scale_embedding", False)
    if not isinstance(unscaled, bool):
        raise ValueError(f"{where}: no_scale_embedding is {unscaled!r}, expected true or false")
    return _made(TransNormerConfig, ours | {"scale_embedding": not unscaled}, where)


def _made(config_class, fields: dict, where: str):
    try:
        return config_class(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def read_config(folder: str | Path) -> dict:
    """config.json of a folder, as a dict; one sentence where there is none or it cannot be read."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no config.json in {folder}; expected a folder with a model in it")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON ({error}); copy or download it again") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds {type(given).__name__}, expected an object with fields")
    return given


def load(folder: str | Path, model_class, dtype: torch.dtype | str | None = None):
    """A model of `model_class` with config and weights of `folder`; see `from_pretrained`."""
    dtype = None if dtype is None else check.float_type("dtype", dtype)
    given = read_config(folder)
    config = config_from_json(model_class.config_class, given, str(Path(folder) / "config.json"))
    with torch.device("meta"):
        model = model_class(config)
    tensors = read_weights(folder)
    _untie(folder, tensors)
    _compare(folder, tensors, model.state_dict())
    own = {name: tensor.to(dtype or tensor.dtype, copy=True) for name, tensor in tensors.items()}
    model.load_state_dict(own, assign=True)
    if {tensor.dtype for tensor in own.values()} == {torch.float64}:
        model.double()  # the decay rates too: they come from the config, not from a file
    return model.requires_grad_()


def save(folder: str | Path, model) -> None:
    """Write config.json and the weights; on a failure the folder stays as it was."""
    with whole_folder(folder, last=WEIGHTS) as part:
        write(part, model)


def write(folder: Path, model, notes: dict[str, str] | None = None) -> None:
    """config.json and the weights into a folder that is there, with `notes` inside the weights."""
    text = json.dumps(config_to_json(model.config), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        if notes:
            data = _with_notes((folder / WEIGHTS).read_bytes(), notes)
            (folder / WEIGHTS).write_bytes(data)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets nobody else read its files


def _with_notes(data: bytes, notes: dict[str, str]) -> bytes:
    """The bytes of a safetensors file with `notes` in its metadata.

    Such a file is 8 bytes of length, a JSON header of that length, and the numbers. The same
    weights and notes give the same bytes (the library itself writes notes in a random order).
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {"format": "pt"} | notes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def read_notes(folder: str | Path) -> dict[str, str]:
    """The notes inside model.safetensors; FileNotFoundError or ValueError where there is none."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"no {WEIGHTS} in {folder}; expected a folder that `transnormer-edu train` wrote"
        )
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise _unreadable(path, error) from None


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a folder by name, memory-mapped; errors name the file."""
    folder = Path(folder)
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder, folder / f"{name}.index.json")
    raise FileNotFoundError(
        f"no weights in {folder}; expected {' or '.join(WEIGHT_FILES)}, or an index of shards"
    )


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{index} is not an index of shards; expected a weight_map in it"
        ) from None
    tensors = {}
    for shard in shards:
        if Path(str(shard)).name != shard or not (folder / shard).is_file():
            raise FileNotFoundError(f"{index.name} names {shard}, which is not in {folder}")
        tensors |= _read_file(folder / shard)
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only the newer of PyTorch's two formats, a zip file, can be mapped.
        mmap = zipfile.is_zipfile(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # a damaged .bin makes torch raise nearly any kind
        raise _unreadable(path, error) from None
    if not isinstance(tensors, dict) or not all(map(_is_named_tensor, tensors.items())):
        raise ValueError(f"{path} holds something other than tensors by name")
    return tensors


def _is_named_tensor(item) -> bool:
    name, tensor = item
    return isinstance(name, str) and isinstance(tensor, Tensor)


def _unreadable(path: Path, error: Exception) -> ValueError:
    first = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return ValueError(
        f"{path} cannot be read as weights: it is truncated, damaged, or holds something other "
        f"than tensors ({first}); copy or download it again"
    )


def _untie(folder, tensors: dict[str, Tensor]) -> None:
    """Drop the head, where a file has it: it is the embedding once more."""
    head = tensors.pop(HEAD, None)
    if head is not None and EMBEDDING not in tensors:
        tensors[EMBEDDING] = head  # a file may keep either of the two names
    if head is not None and EMBEDDING in tensors and not torch.equal(head, tensors[EMBEDDING]):
        raise ValueError(
            f"{folder}: {HEAD} differs from {EMBEDDING}; expected the same numbers, since the "
            "model's head is its embedding"
        )


def _compare(folder, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing:
        raise ValueError(f"{folder}: tensor {_first(missing)} missing; the config asks for it")
    if extra:
        raise ValueError(f"{folder}: tensor {_first(extra)} not expected; the config has no such")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{folder}: tensor {name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(expected[name].shape)} from the config"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{folder}: tensor {name} is {tensor.dtype}, expected floating point")


def _first(names) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more are" if others else f"{first} is"


def _demand(where: str, given: dict, needed: list[str]) -> None:
    absent = [name for name in needed if given.get(name) is None]
    if absent:
        raise ValueError(
            f"{where} lacks {', '.join(absent)}; expected it to give the model's sizes"
        )
