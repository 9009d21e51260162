"""Folders in the released format: in and out, and every way in which one can be broken."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.models import BOTH, linear, randomised, softmax, tokens
from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.checksums import INDEX
from transnormer_edu.decay import released_rates
from transnormer_edu.pretrained import load_pretrained

GOLDEN = Path(__file__).parent / "data" / "released_small"


@pytest.fixture
def folder(tmp_path):
    """A fresh copy of the released-format folder, to be broken."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "model"))


def change_config(folder, **fields):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def change_weights(folder, change):
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    change(tensors)
    torch.save(tensors, folder / "pytorch_model.bin")


@pytest.mark.parametrize("build", BOTH.values(), ids=BOTH.keys())
def test_saved_and_opened_again_it_is_the_same_model(build, tmp_path):
    model = build(torch.float32)
    model.save_pretrained(tmp_path / "saved")
    again = load_pretrained(tmp_path / "saved")
    assert type(again) is type(model) and again.config == model.config
    assert torch.equal(again(tokens(2, 9)), model(tokens(2, 9)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved"]  # nothing half-written beside it


@pytest.mark.parametrize(
    "changes",
    [
        dict(lrpe_layers=(0, 1, 2), activation="1+elu"),
        dict(lrpe_layers=(), glu_dim=-1, scale_embedding=False),
        dict(gate=3, glu_activation="silu", norm="layernorm", decay="paper", hidden_dim=24),
        dict(absolute_position=True, decay="flat"),
    ],
)
def test_every_choice_survives(changes, tmp_path):
    model = linear(torch.float32, **changes)
    model.save_pretrained(tmp_path)
    again = TransNormerLLM.from_pretrained(tmp_path)
    assert again.config == model.config
    assert torch.equal(again(tokens(2, 9)), model(tokens(2, 9)))


def test_the_released_names_are_read_and_written(folder, tmp_path):
    model = TransNormerLLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "ours")
    theirs, ours = (
        json.loads((f / "config.json").read_text()) for f in (GOLDEN, tmp_path / "ours")
    )
    for name in ("decoder_embed_dim", "decoder_layers", "decoder_attention_heads", "hidden_dim"):
        assert ours[name] == theirs[name]
    assert ours["linear_use_lrpe_list"] == theirs["linear_use_lrpe_list"] == [1, 0, 0]
    assert "absolute_position" not in ours  # a choice of ours alone leaves released configs alone
    released = torch.load(GOLDEN / "pytorch_model.bin", weights_only=True)
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert written.keys() == released.keys() - {"lm_head.weight"}
    assert all(torch.equal(tensor, released[name]) for name, tensor in written.items())


# What the original code's config class takes from config.json; a field that is absent there would
# silently be 1024 wide, 24 layers deep and so on. (Its own use_cache and add_bos_token change no
# number.) Its parameters are named as in the golden folder's .bin, which that code wrote.
ORIGINALS_FIELDS = {
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 37, "init_std": 0.02,
    "decoder_embed_dim": 18, "decoder_layers": 3, "decoder_attention_heads": 3, "hidden_dim": 18,
    "glu_dim": 22, "linear_use_lrpe_list": [1, 0, 1], "linear_act_fun": "silu",
    "norm_type": "simplermsnorm", "no_scale_embedding": False, "bias": False,
    "tie_word_embeddings": True, "model_type": "transnormer",
}  # fmt: skip


def test_the_original_code_finds_all_that_it_reads_in_a_folder_of_ours(tmp_path):
    """With that code at hand such folders loaded without a missing key, to the same logits."""
    linear(torch.float32).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert {name: config.get(name) for name in ORIGINALS_FIELDS} == ORIGINALS_FIELDS
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # else its library refuses the file
        names = set(file.keys())
    golden = torch.load(GOLDEN / "pytorch_model.bin", weights_only=True).keys()  # LRPE in layer 0
    theta = "model.layers.2.token_mixer.lrpe.theta"
    assert names == golden - {"lm_head.weight"} | {theta}


def test_a_layernorm_and_an_empty_list_of_lrpe_are_the_original_codes():
    """This small folder was written by the original code, and so were the logits in it."""
    model = TransNormerLLM.from_pretrained(GOLDEN.with_name("released_layernorm"))
    assert (model.config.norm, model.config.lrpe_layers) == ("layernorm", (0, 1, 2))
    expected = load_file(GOLDEN.with_name("released_layernorm") / "expected.safetensors")
    torch.testing.assert_close(
        model(expected["input_ids"]), expected["logits_prefill"], rtol=0, atol=3e-6
    )


def test_glu_dim_minus_one_and_unscaled_embeddings(folder):
    model = linear(torch.float32, glu_dim=18, scale_embedding=False)
    model.save_pretrained(folder)
    (folder / INDEX).unlink()  # its checksums would refuse the change
    change_config(folder, glu_dim=-1)
    assert TransNormerLLM.from_pretrained(folder).config.glu_dim == 18


def test_a_model_is_opened_without_loading_a_compiler():
    """PyTorch's takes more than a second to import, and initialising shapes alone would do it."""
    program = (
        "import sys, transnormer_edu as t, transnormer_edu.info as info\n"
        "model = t.TransNormerLLM.from_pretrained(sys.argv[1])\n"
        "info.summarise(model.config)\n"
        "assert all(parameter.device.type == 'cpu' for parameter in model.parameters())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    for name in ("released_small", "released_layernorm"):
        command = [sys.executable, "-c", program, str(GOLDEN.with_name(name))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(folder, kind):
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    name = "model" if kind == "safetensors" else "pytorch_model"
    write = save_file if kind == "safetensors" else torch.save
    where = {}
    for i, half in enumerate((list(tensors)[:7], list(tensors)[7:])):
        shard = f"{name}-{i}.{kind}"
        write({n: tensors[n] for n in half}, folder / shard)
        where |= dict.fromkeys(half, shard)
    index = folder / f"{name}.{kind}.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    ids = load_file(GOLDEN / "expected.safetensors")["input_ids"]
    expected = TransNormerLLM.from_pretrained(GOLDEN)(ids)
    assert torch.equal(TransNormerLLM.from_pretrained(folder)(ids), expected)
    (folder / f"{name}-1.{kind}").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{name}-1.{kind}, which is not in .*: tensor \S+ and "
    ):
        TransNormerLLM.from_pretrained(folder)


def test_weights_keep_their_type_or_take_the_one_asked_for(folder):
    change_weights(
        folder, lambda tensors: tensors.update({n: t.half() for n, t in tensors.items()})
    )
    assert {p.dtype for p in TransNormerLLM.from_pretrained(folder).parameters()} == {torch.float16}
    wide = TransNormerLLM.from_pretrained(folder, dtype=torch.float64)
    assert {p.dtype for p in wide.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in wide.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, "float64"])
def test_in_float64_the_rates_are_exact(folder, dtype):
    model = TransNormerLLM.from_pretrained(folder, dtype=dtype)
    saved = folder / "in float64"
    model.save_pretrained(saved)
    for wide in (model, TransNormerLLM.from_pretrained(saved)):
        for layer, block in enumerate(wide.model["layers"]):
            exact = released_rates(4, layer, 3, torch.float64)
            assert torch.equal(block.token_mixer.rate, exact)


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", ["int8", torch.int8, "auto", 16])
def test_a_type_that_cannot_be_is_named(folder, dtype):
    with pytest.raises(ValueError, match=f"dtype is {dtype!r}, expected a floating type"):
        TransNormerLLM.from_pretrained(folder, dtype)
    half = TransNormerLLM.from_pretrained(folder, "float16")
    assert {p.dtype for p in half.parameters()} == {torch.float16}


def test_older_bin_files_and_either_name_of_the_head(folder):
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del tensors["model.embed_tokens.weight"]
    path = folder / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    ids = torch.tensor([[3, 4, 5]])
    expected = TransNormerLLM.from_pretrained(GOLDEN)(ids)
    assert torch.equal(TransNormerLLM.from_pretrained(folder)(ids), expected)


def test_what_others_call_part_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.part").mkdir()
    (tmp_path / "m.part" / "thesis").write_text("mine")
    linear(torch.float32).save_pretrained("m")
    assert (tmp_path / "m.part" / "thesis").read_text() == "mine"


def test_the_head_may_be_absent_but_not_another(folder):
    change_weights(folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert TransNormerLLM.from_pretrained(folder)
    change_weights(folder, lambda t: t.update({"lm_head.weight": torch.zeros(151, 64)}))
    with pytest.raises(ValueError, match="lm_head.weight differs from model.embed_tokens.weight"):
        TransNormerLLM.from_pretrained(folder)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda t: t.pop("model.layers.1.channel_mixer.l1.weight"), r"l1.weight is missing"),
        (lambda t: t.update(surplus=torch.ones(1)), "tensor surplus is not expected"),
        (
            lambda t: t.update({"model.layers.2.channel_mixer.l3.weight": torch.ones(64, 95)}),
            r"l3.weight has shape \(64, 95\), expected \(64, 96\)",
        ),
        (
            lambda t: t.update(
                {"model.layers.2.channel_mixer.l3.weight": torch.ones(64, 96).int()}
            ),
            "l3.weight is torch.int32, expected floating point",
        ),
    ],
)
def test_wrong_tensors_are_named(folder, change, sentence):
    change_weights(folder, change)
    with pytest.raises(ValueError, match=sentence):
        TransNormerLLM.from_pretrained(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(folder, name, keep):
    if name == "model.safetensors":
        linear(torch.float32).save_pretrained(folder)
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(ValueError, match=f"{name} cannot be read as weights: it is truncated"):
        TransNormerLLM.from_pretrained(folder)


@pytest.mark.parametrize("newer", [True, False], ids=["zip", "older format"])
def test_a_damaged_bin_file_is_named(folder, newer):
    # Bytes that are overwritten inside torch's pickle make it raise KeyError, IndexError,
    # UnicodeDecodeError, AssertionError ...: whichever it is, the file is what a reader must hear.
    path = folder / "pytorch_model.bin"
    weights = {"a": torch.ones(3, 5), "b": torch.ones(7)}
    torch.save(weights, path, _use_new_zipfile_serialization=newer)
    whole = path.read_bytes()
    for at in range(60, 400, 7):
        path.write_bytes(whole[:at] + b"\xc5" + whole[at + 1 :])
        with pytest.raises(ValueError, match="pytorch_model.bin|tensor .* missing"):
            TransNormerLLM.from_pretrained(folder)


def test_text_in_place_of_weights_is_named(folder):
    (folder / "pytorch_model.bin").write_text("hello world")
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read as weights"):
        TransNormerLLM.from_pretrained(folder)


def test_tensors_without_a_name_are_refused(folder):
    change_weights(folder, lambda tensors: tensors.update({1: torch.ones(1), "a": torch.ones(1)}))
    with pytest.raises(ValueError, match="something other than tensors by name"):
        TransNormerLLM.from_pretrained(folder)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_hostile_pickle_is_not_executed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.save({"a": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read as weights"):
        TransNormerLLM.from_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read as weights"):
        TransNormerLLM.from_pretrained(folder)
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    "fields, sentence",
    [
        (dict(decoder_layers="absent"), "lacks decoder_layers"),
        (dict(vocab_size="absent", glu_dim="absent"), "lacks vocab_size, glu_dim"),
        (dict(linear_act_fun="sillu"), "activation is 'sillu', expected one of"),
        (dict(decoder_attention_heads=7), "7 heads do not divide hidden_dim 64"),
        (dict(linear_use_lrpe_list=[]), "has 0 entries, expected one for each of 3 layers"),
        (dict(linear_use_lrpe_list=[], linear_use_lrpe=True, decoder_layers=10**9), "0 entries"),
        (dict(linear_use_lrpe_list=[1, 0]), "has 2 entries, expected one for each of 3 layers"),
        (dict(decoder_attention_heads=None), "lacks decoder_attention_heads"),
        (dict(no_scale_embedding="yes"), "no_scale_embedding is 'yes', expected true or false"),
        (dict(bias=True), "says bias: true"),
        (dict(model_type="llama"), "model_type is 'llama', expected 'transnormer'"),
        (dict(model_type="softmax_baseline"), "expected 'transnormer': this is another kind"),
        (dict(model_type=["transnormer"]), "expected 'transnormer'"),
        (dict(decoder_embed_dim="64"), "dim is '64', expected a whole number"),
        (dict(decoder_layers="3"), "decoder_layers is '3', expected a whole number"),
    ],
)
@pytest.mark.bad_input
def test_configs_that_cannot_work_are_named(folder, fields, sentence):
    change_config(folder, **fields)
    with pytest.raises(ValueError, match=sentence):
        TransNormerLLM.from_pretrained(folder)


def test_missing_and_damaged_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config.json in .*nowhere"):
        TransNormerLLM.from_pretrained(tmp_path / "nowhere")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="no weights in"):
        TransNormerLLM.from_pretrained(folder)
    (folder / "config.json").write_text('{"vocab_size": 15')
    with pytest.raises(ValueError, match="config.json is not whole JSON"):
        TransNormerLLM.from_pretrained(folder)
    change = {"model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(change))
    with pytest.raises(ValueError, match="model_type is 'llama', expected one of transnormer"):
        load_pretrained(folder)


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    old = linear(torch.float32)
    old.save_pretrained(tmp_path / "m")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transnormer_edu.checkpoint.save_file", full)
    with pytest.raises(OSError, match=r"could not write .*m \(.*No space left.* disk full"):
        softmax(torch.float32).save_pretrained(tmp_path / "m")
    assert torch.equal(load_pretrained(tmp_path / "m")(tokens(1, 4)), old(tokens(1, 4)))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; expected a folder"):
        old.save_pretrained(tmp_path / "file")


def test_no_mixture_of_two_models_is_read(tmp_path, monkeypatch):
    """Killed before the last file was renamed: new config, old weights of the same shapes."""
    linear(torch.float32).save_pretrained(tmp_path / "m")
    other, replace = randomised(linear(decay="none"), torch.float32), os.replace

    def killed(source, target):
        if Path(target).name == "model.safetensors":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        other.save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="is damaged, its checksum is not"):
        load_pretrained(tmp_path / "m")


def test_weights_of_the_same_config_survive_a_kill(tmp_path, monkeypatch):
    old = linear(torch.float32)
    old.save_pretrained(tmp_path / "m")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        randomised(linear(torch.float32), torch.float32).save_pretrained(tmp_path / "m")
    assert torch.equal(load_pretrained(tmp_path / "m")(tokens(1, 4)), old(tokens(1, 4)))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_folder_may_be_a_link_or_another_disk(tmp_path, monkeypatch):
    old, new = linear(torch.float32), linear(torch.float32, decay="none")
    (tmp_path / "there").mkdir()
    (tmp_path / "m").symlink_to(tmp_path / "there" / "m")
    old.save_pretrained(tmp_path / "m")
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "m")
    for model in (new, old):
        model.save_pretrained(tmp_path / "m")
        assert torch.equal(load_pretrained(tmp_path / "m")(tokens(1, 4)), model(tokens(1, 4)))
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["m"]
    assert not list((tmp_path / "there" / "m").glob(".*"))


def test_config_defaults_are_the_released_ones(folder):
    for name in ("hidden_dim", "linear_act_fun", "norm_type", "init_std", "no_scale_embedding"):
        change_config(folder, **{name: "absent"})
    change_config(folder, linear_use_lrpe_list="absent", eos_token_id=None)
    assert TransNormerLLM.from_pretrained(folder).config == TransNormerConfig(
        vocab_size=151, dim=64, layers=3, heads=4, glu_dim=96
    )
