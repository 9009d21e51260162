"""Weights on disk, in the format of the released models: reading a folder, and writing one.

    config.json                         sizes and choices: released_config.py
    model.safetensors or the like       the weights: weight_files.py
    model.safetensors.index.json        in folders that we wrote, checksums: checksums.py

Reading executes nothing. Writing is whole or not at all.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from transnormer_edu import check, gptq, hub
from transnormer_edu.atomic import whole_folder, write_text
from transnormer_edu.checksums import INDEX, seal
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.released_config import (
    check_name,
    config_from_json,
    config_to_json,
    read_config,
)
from transnormer_edu.undrawn import shapes_alone
from transnormer_edu.weight_files import (
    WEIGHTS,
    Stored,
    check_stored,
    open_weights,
    take,
    unreadable,
)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
THREADS = min(4, os.cpu_count() or 1)  # to copy weights: one alone is slower than a fast disk


def load(
    name: str | Path,
    model_class,
    dtype: torch.dtype | str | None = None,
    *,
    variant: str | None = None,
    subfolder: str | None = None,
    progress: bool = False,
):
    """A model of `model_class` with config and weights of a folder; see `from_pretrained`."""
    dtype = None if dtype is None else check.float_type("dtype", dtype)
    folder, config, stored = find(name, model_class.config_class, variant, subfolder)
    with shapes_alone():
        model = model_class(config)
    quantised = getattr(config, "quantization", None)
    if quantised is not None:
        gptq.make_room(model, stored, quantised)
        model.config = config
    stored = _named_as_ours(stored, config)
    _untie(stored)
    _drop_empty_biases(stored)
    _compare(folder, stored, model.state_dict())
    if dtype is None:
        _check_one_type(stored)
    files = {name: one.file for name, one in stored.items()}
    own = _copy(stored, dtype, progress)
    model.load_state_dict(own, assign=True)
    _check_quantised(files, model)
    if own[EMBEDDING].dtype == torch.float64:
        model.double()  # the decay rates too: they come from the config, not from a file
    return model.requires_grad_()


class Found(NamedTuple):
    """A folder that was opened: where its weights are, its config, and its tensors, mapped."""

    folder: Path
    config: object
    stored: dict[str, Stored]


def find(
    name: str | Path, config_class, variant: str | None = None, subfolder: str | None = None
) -> Found:
    """Open a folder or a repository without reading its weights; errors as in `from_pretrained`."""
    folder, beside = hub.split(hub.local_folder(name, subfolder), subfolder)
    given = read_config(beside)
    where = str(beside / "config.json")
    config = config_from_json(config_class, given, where, variant)
    stored = open_weights(folder)
    if variant is None:
        check_name(Path(name).name, given)
    _check_sizes(where, config, stored)
    _check_bits(where, config, stored)
    return Found(folder, config, stored)


def _copy(stored: dict[str, Stored], dtype, progress: bool) -> dict[str, Tensor]:
    """All tensors, checked, in memory of their own."""
    total = sum(one.tensor.nbytes for one in stored.values())
    bar = tqdm(total=total, unit="B", unit_scale=True, desc="weights", disable=not progress)

    def copy(name: str) -> tuple[str, Tensor]:
        one = stored.pop(name)
        copied = take(name, one, dtype)
        bar.update(one.tensor.nbytes)
        return name, copied

    with bar, ThreadPoolExecutor(THREADS) as pool:
        return dict(pool.map(copy, list(stored)))


def save(folder: str | Path, model) -> None:
    """Write config.json and the weights; on a failure the folder stays as it was.

    Of a process that is killed in between the folder may hold a mixture. It is sound, and read,
    where the config is the one that was there; of another config it is refused.
    """
    there, text = check.path("folder", folder) / "config.json", config_text(model.config)
    same = not there.is_file() or there.read_bytes() == text.encode()
    with whole_folder(folder, last=WEIGHTS, seal=INDEX, mixable=same) as part:
        write(part, model)
        seal(part, WEIGHTS)


def config_text(config) -> str:
    """What stands in config.json."""
    return json.dumps(config_to_json(config), indent=2) + "\n"


def write(folder: Path, model, notes: dict[str, str] | None = None) -> None:
    """config.json and the weights into a folder that is there, with `notes` inside the weights."""
    write_text(folder / "config.json", config_text(model.config))
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
        raise unreadable(path, error) from None


def _check_sizes(where: str, config, stored: dict[str, Stored]) -> None:
    """ValueError for sizes that no such weights have, before a model of them is made.

    (Which may be too large for any memory, even without numbers in it.)
    """
    prefix = "model.layers."
    there = {name.removeprefix(prefix).split(".")[0] for name in stored if name.startswith(prefix)}
    first = next(i for i in range(len(there) + 1) if str(i) not in there)
    if first != config.layers:
        what = "missing" if first < config.layers else "not expected"
        at = min(first, config.layers)
        raise ValueError(
            f"tensor {prefix}{at}.token_mixer.qkvu_proj and all others of that layer are {what}; "
            f"{where} says {config.layers} layers"
        )
    longest = max((max(one.tensor.shape, default=0) for one in stored.values()), default=0)
    for field in ("vocab_size", "dim", "glu_dim", "hidden_dim", "gate"):
        size = getattr(config, field, None)
        if isinstance(size, int) and size > 16 * longest:  # up to 16 numbers are packed into one
            raise ValueError(f"{where} says {field} {size}, but no tensor has an axis so long")


def _check_bits(where: str, config, stored: dict[str, Stored]) -> None:
    """ValueError for weights of full width that the config says are of few bits."""
    form = getattr(config, "quantization", None)
    if form is not None and not any(name.endswith(".qweight") for name in stored):
        name = min(stored)
        raise ValueError(
            f"{stored[name].file}: tensor {name} and all others are stored as they are, but "
            f"{where} says {form.bits} bits (quantization_config); expected a qweight"
        )


def _named_as_ours(stored: dict[str, Stored], config) -> dict[str, Stored]:
    """The tensors of a thin gate by our names, whatever they are called in the file.

    TransNormerLLM3's names were not seen. Assumed is that they are the first series' but for the
    gate, whose two matrices (rank, d) and (hidden, rank) are the only ones of their shapes in a
    layer, and for the projection of q, k, v without u, (3 hidden, d), which likewise stands alone.
    """
    rank = getattr(config, "gate", None)
    if not isinstance(config, TransNormerConfig) or not isinstance(rank, int):
        return stored
    ours = {
        (3 * config.hidden_dim, config.dim): "qkvu_proj.weight",
        (rank, config.dim): "u_proj.0.weight",
        (config.hidden_dim, rank): "u_proj.1.weight",
    }
    renamed: dict[str, Stored] = {}
    for name, one in stored.items():
        mixer, found, _ = name.partition("token_mixer.")
        role = ours.get(tuple(one.tensor.shape)) if found and len(ours) == 3 else None
        own = f"{mixer}token_mixer.{role}" if role else name
        if own in renamed:
            raise ValueError(
                f"{one.file}: tensor {name} has shape {tuple(one.tensor.shape)} like another of "
                f"its layer; expected one such, for a gate of rank {rank}"
            )
        renamed[own] = one
    return renamed


def _untie(stored: dict[str, Stored]) -> None:
    """Drop the head, where a file has it: it is the embedding once more."""
    head = stored.pop(HEAD, None)
    if head is None:
        return
    embedding = stored.setdefault(EMBEDDING, head)  # a file may keep either of the two names
    if not torch.equal(head.tensor, embedding.tensor):
        check_stored(HEAD, head)  # damage would be another sentence
        check_stored(EMBEDDING, embedding)
        raise ValueError(
            f"{head.file}: {HEAD} differs from {EMBEDDING}; expected the same numbers, since the "
            "model's head is its embedding"
        )


def _drop_empty_biases(stored: dict[str, Stored]) -> None:
    """AutoGPTQ writes a bias beside each quantised matrix; here it must be zero."""
    for name in [n for n in stored if n.endswith(".bias") and f"{n[:-5]}.qweight" in stored]:
        one = stored.pop(name)
        check_stored(name, one)
        if one.tensor.any():
            raise ValueError(f"{one.file}: tensor {name} is not zero; these models have no bias")


def _compare(folder, stored: dict[str, Stored], expected: dict[str, Tensor]) -> None:
    missing, extra = expected.keys() - stored.keys(), stored.keys() - expected.keys()
    if missing:
        files = {one.file for one in stored.values()}
        where = files.pop() if len(files) == 1 else folder
        raise ValueError(
            f"{where}: tensor {_first(missing)} missing; the config asks for it" + _hint(extra)
        )
    if extra:
        file = stored[min(extra)].file
        raise ValueError(f"{file}: tensor {_first(extra)} not expected; the config has no such")
    for name, one in stored.items():
        tensor, wanted = one.tensor, expected[name]
        if tensor.shape != wanted.shape:
            raise ValueError(
                f"{one.file}: tensor {name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(wanted.shape)} from the config"
            )
        if tensor.dtype != wanted.dtype and not _both_floating(tensor, wanted):
            kind = "floating point" if wanted.is_floating_point() else wanted.dtype
            raise ValueError(f"{one.file}: tensor {name} is {tensor.dtype}, expected {kind}")


def _check_one_type(stored: dict[str, Stored]) -> None:
    """ValueError for matrices of several types, or of one that nothing is computed in."""
    common = stored[EMBEDDING].tensor.dtype
    for name, one in stored.items():
        own = one.tensor.dtype
        if name.endswith(".weight") and (own != common or own not in check.FLOATS):
            raise ValueError(
                f"{one.file}: tensor {name} is {own}, and {EMBEDDING} {common}; say in which one "
                "all shall be, such as dtype='float32'"
            )


def _both_floating(*tensors: Tensor) -> bool:
    return all(tensor.is_floating_point() for tensor in tensors)


def _hint(extra: set[str]) -> str:
    return f" (but the weights have {min(extra)}, which it does not)" if extra else ""


def _check_quantised(files: dict[str, Path], model) -> None:
    for name, module in model.named_modules():
        if isinstance(module, gptq.QuantLinear):
            try:
                module.check_stored(name)
            except ValueError as error:
                raise ValueError(f"{files[f'{name}.g_idx']}: {error}") from None


def _first(names) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more are" if others else f"{first} is"
