"""One byte changed, anywhere: a sentence that names the file, or, where it means nothing, the same
numbers. Never other weights, and nothing half-loaded."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import released
from tests.models import BOTH, linear
from transnormer_edu import TransNormerLLM, checksums
from transnormer_edu.pretrained import load_pretrained

GOLDEN = Path(__file__).parent / "data" / "released_small"


def flipped(path: Path, at: int, bit: int = 2) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.fixture
def saved(tmp_path):
    linear(torch.float32).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("record", ["data.pkl", "data/2", "data/9", "version", "data/17"])
def test_a_byte_in_a_bin_is_found_by_the_checksum_of_its_record(record, tmp_path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "m"))
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"pytorch_model/{record}")
    start = data_start(path, info)
    names = {"data/2": "model.layers.0.token_mixer.lrpe.theta", "data/17": "lm_head.weight",
             "data/9": "model.layers.1.channel_mixer.l1.weight"}  # fmt: skip
    for at in (start, start + info.file_size // 2, start + info.file_size - 1):
        whole = path.read_bytes()
        flipped(path, at)
        with pytest.raises(ValueError, match=r"pytorch_model\.bin") as said:
            TransNormerLLM.from_pretrained(folder)
        assert names.get(record, "pytorch_model.bin") in str(said.value)
        path.write_bytes(whole)


def data_start(path: Path, info: zipfile.ZipInfo) -> int:
    header = path.read_bytes()[info.header_offset : info.header_offset + 30]
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return info.header_offset + 30 + lengths


def test_any_byte_in_a_bin_is_found_or_means_nothing(tmp_path):
    folder = tmp_path / "m"
    form = "TransNormerLLM-1B"
    released.write_folder(folder, form, released.random_tensors(form))
    path = folder / "pytorch_model.bin"
    whole, expected = path.read_bytes(), TransNormerLLM.from_pretrained(folder).state_dict()
    refused = []
    for at in range(0, len(whole), 151):
        path.write_bytes(whole)
        flipped(path, at, at % 8)
        try:
            found = TransNormerLLM.from_pretrained(folder).state_dict()
            assert all(torch.equal(found[name], expected[name]) for name in expected)
        except (ValueError, FileNotFoundError) as error:
            refused.append(str(error))
    assert all("pytorch_model.bin" in sentence for sentence in refused)
    # What was not refused is padding between records and what zip says twice.
    numbers = sum(tensor.nbytes for tensor in expected.values())
    assert len(refused) >= numbers / 151


@pytest.mark.parametrize("build", [BOTH["linear"], BOTH["softmax, rope"]])
def test_any_byte_of_a_folder_that_we_saved_is_found(build, tmp_path):
    folder = tmp_path / "saved"
    build(torch.float32).save_pretrained(folder)
    files = sorted(folder.iterdir())
    assert [f.name for f in files] == ["config.json", "model.safetensors", checksums.INDEX]
    assert load_pretrained(folder)
    for path in files:
        whole = path.read_bytes()
        for at in {*range(0, len(whole), 331), *range(0, 700, 37), len(whole) - 1}:
            if at < len(whole):
                flipped(path, at, at % 8)
                with pytest.raises((ValueError, FileNotFoundError)) as said:
                    load_pretrained(folder)
                assert path.name in str(said.value), (path.name, at, str(said.value))
                assert len(str(said.value).splitlines()) == 1
                path.write_bytes(whole)
    assert load_pretrained(folder)


def test_a_damaged_number_is_named_by_its_tensor(saved):
    path = saved / "model.safetensors"
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8:start])
    for name, about in header.items():
        if name != "__metadata__":
            whole = path.read_bytes()
            flipped(path, start + about["data_offsets"][0] + 1)
            with pytest.raises(ValueError, match=rf"safetensors: tensor {name} is damaged"):
                TransNormerLLM.from_pretrained(saved)
            path.write_bytes(whole)


def test_what_is_missing_beside_the_weights_is_named(saved):
    (saved / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        TransNormerLLM.from_pretrained(saved)


def test_damage_is_not_taken_for_a_series_that_nobody_named(tmp_path):
    """A saved TransNormerLLM3 says itself that its gate is thin, unless that word is damaged."""
    folder = tmp_path / "TransNormerLLM3-15B"
    linear(torch.float32, gate=4).save_pretrained(folder)
    assert TransNormerLLM.from_pretrained(folder)
    flipped(folder / "config.json", (folder / "config.json").read_bytes().index(b'"gate"') + 1)
    with pytest.raises(ValueError, match="config.json is not as it was saved"):
        TransNormerLLM.from_pretrained(folder)


def test_without_the_index_changes_are_the_users_own(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"linear_act_fun": "relu"}))
    with pytest.raises(ValueError, match=r"config.json is not as it was saved; .* remove model"):
        TransNormerLLM.from_pretrained(saved)
    (saved / checksums.INDEX).unlink()
    assert TransNormerLLM.from_pretrained(saved).config.activation == "relu"


def test_an_index_that_contradicts_its_shards(tmp_path):
    form = "TransNormerLLM-7B"
    released.write_folder(tmp_path / "m", form, released.random_tensors(form))
    path = tmp_path / "m" / "pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = "pytorch_model-00002-of-00002.bin"
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"00002-of-00002.bin.* tensor {name}"):
        TransNormerLLM.from_pretrained(tmp_path / "m")
    first = tmp_path / "m" / "pytorch_model-00001-of-00002.bin"
    second = torch.load(tmp_path / "m" / "pytorch_model-00002-of-00002.bin", weights_only=True)
    twice = next(iter(second))
    torch.save(torch.load(first, weights_only=True) | {twice: second[twice]}, first)
    with pytest.raises(ValueError, match=f"tensor {twice} is also in"):
        TransNormerLLM.from_pretrained(tmp_path / "m")


def test_views_of_one_storage_are_read_and_checked(tmp_path):
    """Others' .bin files may hold slices of a larger tensor, or transposed ones."""
    form = "TransNormerLLM-385M"
    tensors = released.random_tensors(form)
    released.write_folder(tmp_path / "m", form, tensors)
    expected = TransNormerLLM.from_pretrained(tmp_path / "m").state_dict()
    one, two = (f"model.layers.0.channel_mixer.{part}.weight" for part in ("l1", "l3"))
    tensors[one] = torch.cat([tensors[one], tensors[one]])[:40]
    tensors[two] = tensors[two].T.contiguous().T
    path = tmp_path / "m" / "pytorch_model.bin"
    torch.save(tensors, path)
    found = TransNormerLLM.from_pretrained(tmp_path / "m").state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.file_size == 2 * 40 * 24 * 4)
    flipped(path, data_start(path, info) + info.file_size - 1)  # in the half that is not used
    with pytest.raises(ValueError, match=f"tensor {one} is damaged"):
        TransNormerLLM.from_pretrained(tmp_path / "m")


def test_records_that_no_tensor_uses_are_checked_too(tmp_path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "m"))
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("pytorch_model/data/99", b"12345678" * 9)
    assert TransNormerLLM.from_pretrained(folder)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("pytorch_model/data/99")
    flipped(path, data_start(path, info) + 3)
    with pytest.raises(ValueError, match="bad checksum of pytorch_model/data/99"):
        TransNormerLLM.from_pretrained(folder)


MEASURE = """
import re, sys, torch
from pathlib import Path
from transnormer_edu import weight_files
from transnormer_edu.checkpoint import _copy
def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
_copy(weight_files.open_weights(sys.argv[2]), None, False)  # threads and libraries are there now
before = anonymous()
kept = _copy(weight_files.open_weights(sys.argv[1]), getattr(torch, sys.argv[3]), False)
print((anonymous() - before) / sum(tensor.nbytes for tensor in kept.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_holds_one_copy_in_the_wanted_type(kind, dtype, tmp_path):
    """Here with 0.1 GB, since the share does not depend on the size."""
    for folder, rows in (("large", 1500), ("small", 3)):
        tensors = {f"t{i}": torch.zeros(rows, 2048) for i in range(9)}
        (tmp_path / folder).mkdir()
        name = "pytorch_model.bin" if kind == "bin" else "model.safetensors"
        (torch.save if kind == "bin" else save_file)(tensors, tmp_path / folder / name)
    arguments = [str(tmp_path / "large"), str(tmp_path / "small"), dtype]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True
    )
    assert 0.9 < float(done.stdout) < 1.15


def test_notes_and_checksums_go_together(saved):
    """The index is made of the finished file, whatever was written into its header."""
    sums = checksums.read_sums(saved)["model.safetensors"]
    tensors = load_file(saved / "model.safetensors")
    assert sums.keys() == tensors.keys() | {"header"}
    assert all(re.fullmatch("[0-9a-f]{8}", crc) for crc in sums.values())
