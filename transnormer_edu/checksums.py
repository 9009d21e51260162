"""Checksums of a saved folder: a byte that changed on the way is found before it is used.

    model.safetensors.index.json    which file each tensor is in, as Hugging Face's index of shards
        weight_map                  tensor -> file
        crc32                       file -> its checksum; for weights, of the header and each tensor
        crc32_of_this_index         of all the rest of the index

CRC-32, as in zip files: it finds every change of up to four bytes in a row, and nearly every other.
It is no signature: who wants to deceive can compute it too.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from transnormer_edu.atomic import write_text

INDEX = "model.safetensors.index.json"
SUMS, OWN_SUM, HEADER = "crc32", "crc32_of_this_index", "header"
CHUNK = 1 << 20  # numbers at a time: small enough to be in the processor's cache when they are used


def seal(folder: Path, weights: str) -> None:
    """Write the index of `folder`, whose weights are in the file `weights`, with all checksums."""
    sums = {
        file.name: _hex(zlib.crc32(file.read_bytes()))
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in (INDEX, weights)
    }
    path = folder / weights
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    sums[weights] = {HEADER: header_sum(path)} | {n: tensor_sum(t) for n, t in tensors.items()}
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": dict.fromkeys(tensors, weights),
        SUMS: sums,
    }
    write_text(folder / INDEX, _text(index | {OWN_SUM: _own_sum(index)}))


def read_sums(folder: Path) -> dict:
    """The checksums in the index of a folder that `seal` wrote; {} where there is none of ours.

    Errors: ValueError for an index that was changed since it was written.
    """
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        index = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged; {_way_out(path)}") from None
    if not isinstance(index, dict) or not {SUMS, OWN_SUM} & index.keys():
        return {}  # another program's index of shards
    own = index.pop(OWN_SUM, None)
    if own != _own_sum(index) or text != _text(index | {OWN_SUM: own}):
        raise ValueError(f"{path} is not as it was saved; {_way_out(path)}")
    return index[SUMS]


def check_files(folder: Path, sums: dict) -> None:
    """ValueError, naming the file, unless every file but the weights is as it was saved."""
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{name} is missing in {folder}; {_way_out(folder / INDEX)}")
        if isinstance(expected, str) and _hex(zlib.crc32(path.read_bytes())) != expected:
            raise ValueError(f"{path} is not as it was saved; {_way_out(folder / INDEX)}")


def check_header(path: Path, expected: str | None) -> None:
    """ValueError, naming the file, unless the header of a safetensors file is as it was saved."""
    if expected is not None and header_sum(path) != expected:
        way_out = _way_out(path.parent / INDEX)
        raise ValueError(f"{path}: the header is not as it was saved; {way_out}")


def header_sum(path: Path) -> str:
    """Of a safetensors file: 8 bytes of length, and a JSON header of that length."""
    with open(path, "rb") as file:
        length = file.read(8)
        rest = min(int.from_bytes(length, "little"), path.stat().st_size)
        return _hex(zlib.crc32(length + file.read(rest)))


def tensor_sum(tensor: Tensor) -> str:
    """Of a tensor's numbers as bytes."""
    crc = 0
    for piece in pieces(tensor):
        crc = zlib.crc32(as_bytes(piece), crc)
    return _hex(crc)


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A contiguous tensor in flat pieces of `CHUNK` numbers."""
    flat = tensor.detach().reshape(-1)
    return (flat[i : i + CHUNK] for i in range(0, len(flat), CHUNK))


def as_bytes(piece: Tensor):
    """What a checksum is computed of; nothing is copied."""
    return piece.view(torch.uint8).numpy()


def _hex(crc: int) -> str:
    return f"{crc:08x}"


def _text(index: dict) -> str:
    return json.dumps(index, indent=1, sort_keys=True) + "\n"


def _own_sum(index: dict) -> str:
    return _hex(zlib.crc32(_text(index).encode()))


def _way_out(index: Path) -> str:
    return (
        "copy or download the folder again (or, if you changed it yourself, remove "
        f"{index.name}: nothing is checked then)"
    )
