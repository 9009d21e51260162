"""Files of weights: which a folder has, what is in them, and whether they are whole.

    model.safetensors, pytorch_model.bin    the weights; or either in shards, with an index:
    *.index.json                            which file each tensor is in

Opening maps a file into memory and reads next to nothing; `take` then copies a tensor, in the type
that is wanted, and checks it on the way. So no more than one copy is ever held. Nothing in a file
is executed: .bin files are opened with `weights_only`.
"""

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from transnormer_edu import checksums, hub

WEIGHTS = "model.safetensors"
WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
QUANTISED = "gptq_model-*bit*"  # as AutoGPTQ names its file: gptq_model-4bit-128g.safetensors


class Stored(NamedTuple):
    """A tensor in a file, mapped; `crc` is what the file, or its folder, says its checksum is."""

    tensor: Tensor
    file: Path
    crc: str | None


def open_weights(folder: str | Path) -> dict[str, Stored]:
    """All tensors of a folder by name; errors name the file."""
    folder = Path(folder)
    sums = checksums.read_sums(folder)
    checksums.check_files(folder, sums)
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return _open(folder / name, sums)
        if (folder / f"{name}.index.json").is_file():
            return _open_shards(folder, folder / f"{name}.index.json", sums)
    for index in folder.glob(f"{QUANTISED}.index.json"):
        return _open_shards(folder, index, sums)
    quantised = sorted(f for f in folder.glob(QUANTISED) if f.suffix in (".safetensors", ".bin"))
    if quantised:
        return _open(quantised[-1], sums)  # where both are there: not the .bin
    raise FileNotFoundError(
        f"no weights in {folder}; expected {' or '.join(WEIGHT_FILES)}, or an index of shards"
        + hub.revisions(folder)
    )


def take(name: str, stored: Stored, dtype: torch.dtype | None) -> Tensor:
    """A copy of a stored tensor in `dtype` (None: its own; whole numbers stay what they are).

    Errors: ValueError, naming file and tensor, where it is not what its checksum says.
    """
    tensor = stored.tensor
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if not tensor.is_contiguous():  # a view of a larger storage: the checksum is that one's
        check_stored(name, stored)
        return tensor.to(wanted, copy=True, memory_format=torch.contiguous_format)
    copy = torch.empty(tensor.shape, dtype=wanted)
    crc, one_pass = 0, stored.crc is not None and _is_whole_storage(tensor)
    for old, new in zip(checksums.pieces(tensor), checksums.pieces(copy), strict=True):
        if one_pass:
            crc = zlib.crc32(checksums.as_bytes(old), crc)
        new.copy_(old)
    if one_pass and f"{crc:08x}" != stored.crc:
        raise _damaged(name, stored)
    if not one_pass:
        check_stored(name, stored)
    return copy


def check_stored(name: str, stored: Stored) -> None:
    """ValueError, naming file and tensor, where it is not what its checksum says."""
    if stored.crc is None:
        return
    whole = torch.empty(0, dtype=torch.uint8).set_(stored.tensor.untyped_storage())
    if checksums.tensor_sum(whole) != stored.crc:
        raise _damaged(name, stored)


def _damaged(name, stored) -> ValueError:
    return ValueError(
        f"{stored.file}: tensor {name} is damaged, its checksum is not {stored.crc}; copy or "
        "download the file again"
    )


def _is_whole_storage(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.nbytes == tensor.untyped_storage().nbytes()


def _open_shards(folder: Path, index: Path, sums: dict) -> dict[str, Stored]:
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(
            f"{index} is not an index of shards; expected a weight_map in it"
        ) from None
    found: dict[str, Stored] = {}
    for shard in shards:
        if Path(str(shard)).name != shard or not (folder / shard).is_file():
            first, *others = sorted(name for name in where if where[name] == shard)
            raise FileNotFoundError(
                f"{index.name} names {shard}, which is not in {folder}: tensor {first} and "
                f"{len(others)} more are missing"
            )
        for name, stored in _open(folder / shard, sums).items():
            if name in found:
                raise ValueError(
                    f"{folder / shard}: tensor {name} is also in {found[name].file.name}; expected "
                    "each in one shard"
                )
            found[name] = stored
    for name, shard in where.items():
        if name not in found or found[name].file.name != shard:
            raise ValueError(
                f"{folder / shard}: tensor {name} is missing; {index.name} says it has"
            )
    return found


def _open(path: Path, sums: dict) -> dict[str, Stored]:
    """The tensors of one file, with the checksums that the file or its folder has for them."""
    try:
        tensors, known = _map_safetensors(path, sums) if is_safetensors(path) else _map_bin(path)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # a damaged .bin makes torch raise nearly any kind
        raise unreadable(path, error) from None
    checksums.check_header(path, known.get(checksums.HEADER))
    return {name: Stored(tensor, path, known.get(name)) for name, tensor in tensors.items()}


def is_safetensors(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _map_safetensors(path: Path, sums: dict):
    return load_file(path), sums.get(path.name, {})


def _map_bin(path: Path):
    # Only the newer of PyTorch's two formats, a zip file, can be mapped, and has checksums.
    is_zip = zipfile.is_zipfile(path)
    records = _zip_records(path) if is_zip else []
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    if not isinstance(tensors, dict) or not all(map(_is_named_tensor, tensors.items())):
        raise ValueError("something other than tensors by name")
    for name, tensor in tensors.items():
        _check_plain(name, tensor)
    return tensors, _by_tensor(path, tensors, records) if is_zip else {}


def _zip_records(path: Path) -> list[zipfile.ZipInfo]:
    """The records that hold numbers, in their order; all others are read here, and so checked."""
    with zipfile.ZipFile(path) as archive:
        numbers = []
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:  # PyTorch never does; it may be a bomb
                raise ValueError(f"its record {record.filename} is compressed")
            if re.fullmatch(r"[^/]+/data/[^/]+", record.filename):
                numbers.append(record)
            elif archive.read(record) is None:
                raise zipfile.BadZipFile(record.filename)
    return sorted((r for r in numbers if r.file_size), key=lambda record: record.header_offset)


def _by_tensor(path: Path, tensors: dict[str, Tensor], records) -> dict[str, str]:
    """Checksums by tensor: storages are mapped in the order in which their records stand."""
    storages = {name: tensor.untyped_storage() for name, tensor in tensors.items()}
    sizes = {s.data_ptr(): s.nbytes() for s in storages.values() if s.nbytes()}
    if [sizes[at] for at in sorted(sizes)] != [record.file_size for record in records]:
        with zipfile.ZipFile(path) as archive:  # records that no tensor uses: read all of them
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"bad checksum of {damaged}")
        return {}
    sums = {at: f"{r.CRC:08x}" for at, r in zip(sorted(sizes), records, strict=True)}
    return {name: sums[s.data_ptr()] for name, s in storages.items() if s.nbytes()}


def _check_plain(name: str, tensor: Tensor) -> None:
    """ValueError unless each of the tensor's numbers stands in the file: few can say they are many.

    (A matrix of rows that are one and the same is as large as its config likes.)
    """
    plain = tensor.layout == torch.strided and not tensor.is_meta
    if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"tensor {name} has not all of its numbers")


def _is_named_tensor(item) -> bool:
    name, tensor = item
    return isinstance(name, str) and isinstance(tensor, Tensor)


def unreadable(path: Path, error: Exception) -> ValueError:
    """What to say of a file that torch or safetensors refuse."""
    return ValueError(
        f"{path} cannot be read as weights: it is truncated, damaged, or holds something other "
        f"than tensors ({_reason(error)}); copy or download it again"
    )


def _reason(error: Exception) -> str:
    """What torch says at length, in a few words."""
    said = str(error)
    if program := re.search(r"GLOBAL (\S+)", said):
        return f"it wants {program[1]} to be called, which was not done"
    found = re.search(r"WeightsUnpickler error: (.+)", said) or re.search(r"(.+)", said)
    return found[1].strip()[:160] if found else type(error).__name__
