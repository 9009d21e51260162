"""Small folders in the form of each of the eight released models give what the facts say."""

import json
import os
import zipfile
from fnmatch import fnmatch

import pytest
import torch

from tests import released
from transnormer_edu import TransNormerLLM, generate
from transnormer_edu.pretrained import load_pretrained

IDS = [5, 17, 3, 44, 3, 9, 52, 21, 8]
UNSEEN = {"TransNormerLLM2": "transnormerllm2", "TransNormerLLM3": "transnormerllm3"}
PLAIN = [form for form in released.FORMS if "GPTQ" not in form]


def variant_of(form: str) -> str | None:
    return UNSEEN.get(form.split("-")[0])


def place(tmp_path, form: str):
    """The folder to open, and the arguments to open it with."""
    if "LLM3" in form:  # revisions as sub-folders
        return tmp_path / form / "step44000-180Btokens", dict(subfolder="step44000-180Btokens")
    return tmp_path / form, {}


@pytest.mark.parametrize("form", PLAIN)
def test_a_folder_in_each_form_gives_the_computed_logits(form, tmp_path):
    tensors, config = released.random_tensors(form), released.config_of(form)
    folder, where = place(tmp_path, form)
    released.write_folder(folder, form, tensors)
    model = TransNormerLLM.from_pretrained(
        tmp_path / form, torch.float64, variant=variant_of(form), **where
    )
    expected = released.forward(tensors, config, IDS, parallel="LLM2" in form)
    torch.testing.assert_close(model(torch.tensor([IDS]))[0], expected, rtol=1e-9, atol=1e-9)
    # Reading on from a state, token by token, is the same once more.
    greedy = generate(model, [IDS], 3, stop_tokens=())[0].tolist()
    whole = released.forward(tensors, config, IDS + greedy, parallel="LLM2" in form)
    assert whole[len(IDS) - 1 : -1].argmax(-1).tolist() == greedy


OTHERS = [  # activation, layers, heads, width of a head, glu_dim, layers with LRPE
    ("swish", 1, 1, 8, 12, [1]),
    ("relu", 2, 2, 5, -1, [1, 1]),
    ("gelu", 3, 6, 4, 10, [1, 1, 1]),
    ("elu", 3, 7, 2, 9, [0, 1, 0]),
    ("sigmoid", 2, 8, 2, -1, [0, 0]),
    ("exp", 2, 12, 3, 20, [1, 0]),
    ("leak", 4, 3, 6, 11, [1, 1, 1, 1]),
    ("1+elu", 2, 5, 4, -1, [1, 1]),
    ("2+elu", 2, 9, 2, 8, [0, 1]),
    ("sine", 3, 3, 3, 14, [1, 0, 1]),
    ("none", 2, 6, 3, -1, [1, 0]),
]


@pytest.mark.parametrize("form", ["TransNormerLLM-385M", "TransNormerLLM2-3B-300B"])
@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case[0])
def test_other_models_in_the_released_format(form, case, tmp_path):
    """As .bin with a head, scaled; as safetensors without one, unscaled, mixers in parallel."""
    activation, layers, heads, width, glu, lrpe = case
    config = released.config_of(form) | dict(
        linear_act_fun=activation, decoder_layers=layers, decoder_attention_heads=heads,
        decoder_embed_dim=heads * width, hidden_dim=heads * width, glu_dim=glu,
        linear_use_lrpe_list=lrpe,
    )  # fmt: skip
    tensors = released.random_tensors(form, config)
    released.write_folder(tmp_path / form, form, tensors, config)
    model = TransNormerLLM.from_pretrained(tmp_path / form, torch.float64, variant=variant_of(form))
    expected = released.forward(tensors, config, IDS, parallel="LLM2" in form)
    torch.testing.assert_close(model(torch.tensor([IDS]))[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["TransNormerLLM2-1B-300B", PLAIN[-1]])
def test_a_later_series_is_saved_as_what_it_is(form, tmp_path):
    folder, where = place(tmp_path, form)
    released.write_folder(folder, form, released.random_tensors(form))
    model = TransNormerLLM.from_pretrained(tmp_path / form, variant=variant_of(form), **where)
    model.save_pretrained(tmp_path / "saved" / form)
    again = load_pretrained(tmp_path / "saved" / form)
    assert again.config == model.config
    ids = torch.tensor([IDS])
    assert torch.equal(again(ids), model(ids))


@pytest.mark.parametrize("form", ["TransNormerLLM2-1B-300B", PLAIN[-1]])
def test_nobody_gets_a_later_series_without_having_said_so(form, tmp_path):
    released.write_folder(tmp_path / form, form, released.random_tensors(form))
    with pytest.raises(ValueError, match=f"say variant='{variant_of(form)}' to read it"):
        TransNormerLLM.from_pretrained(tmp_path / form)


def test_revisions_are_named_and_may_have_a_config_of_their_own(tmp_path):
    form = PLAIN[-1]
    folder, where = place(tmp_path, form)
    released.write_folder(folder, form, released.random_tensors(form))
    for config_in in (folder, tmp_path / form):
        (folder / "config.json").replace(config_in / "config.json")
        model = TransNormerLLM.from_pretrained(
            str(tmp_path / form), variant="transnormerllm3", **where
        )
        assert model.config.vocab_size == 61
        folder_of_config = config_in
        if config_in == folder:
            with pytest.raises(FileNotFoundError, match=r"no config\.json .* subfolder='step"):
                TransNormerLLM.from_pretrained(tmp_path / form, variant="transnormerllm3")
    sentence = "no weights in .* sub-folders hold some: choose one, such as subfolder='step44000"
    with pytest.raises(FileNotFoundError, match=sentence):
        TransNormerLLM.from_pretrained(folder_of_config, variant="transnormerllm3")
    with pytest.raises(FileNotFoundError, match="there is no folder step1 in"):
        TransNormerLLM.from_pretrained(folder_of_config, subfolder="step1")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"gate_a": "gate_a"}, None),
        (
            {"qkvu_proj": (160, 40)},
            r"qkvu_proj.weight has shape \(160, 40\), expected \(120, 40\)",
        ),
        ({"gate_b": (40, 8)}, "u_proj.1.weight .* missing; .*but the weights have .*gate_b"),
        ({"extra": (16, 40)}, r"tensor .*extra.weight has shape \(16, 40\) like another"),
        ({"extra": (7,)}, "tensor model.layers.1.token_mixer.extra.weight is not expected"),
    ],
)
def test_tensors_that_contradict_what_is_assumed_of_the_third_series(change, sentence, tmp_path):
    form = PLAIN[-1]
    tensors = released.random_tensors(form)
    for name, shape in change.items():
        if isinstance(shape, tuple):
            tensors[f"model.layers.1.token_mixer.{name}.weight"] = torch.ones(shape)
    released.write_folder(tmp_path / form, form, tensors)
    if sentence is None:
        assert TransNormerLLM.from_pretrained(tmp_path / form, variant="transnormerllm3")
        return
    with pytest.raises(ValueError, match=sentence):
        TransNormerLLM.from_pretrained(tmp_path / form, variant="transnormerllm3")


def test_tensors_that_contradict_what_is_assumed_of_the_second_series(tmp_path):
    form = "TransNormerLLM2-1B-300B"
    tensors = released.random_tensors(form)
    tensors["model.layers.0.channel_norm.weight"] = torch.ones(24)
    released.write_folder(tmp_path / form, form, tensors)
    with pytest.raises(ValueError, match="bin: tensor model.layers.0.channel_norm.weight is not"):
        TransNormerLLM.from_pretrained(tmp_path / form, variant="transnormerllm2")


@pytest.mark.bad_input
def test_a_variant_that_is_none_or_contradicts_the_config(tmp_path):
    form = "TransNormerLLM-385M"
    config = released.config_of(form) | {"gate": "full"}
    released.write_folder(tmp_path / form, form, released.random_tensors(form), config)
    with pytest.raises(ValueError, match="says gate 'full', but variant 'transnormerllm3' has 16"):
        TransNormerLLM.from_pretrained(tmp_path / form, variant="transnormerllm3")
    with pytest.raises(ValueError, match="variant is 2, expected one of transnormerllm,"):
        TransNormerLLM.from_pretrained(tmp_path / form, variant=2)


@pytest.mark.parametrize(
    "lie",
    [
        dict(decoder_layers=10**9),
        dict(vocab_size=10**12),
        dict(glu_dim=10**9),
        dict(hidden_dim=10**9),
        dict(decoder_layers=2, linear_use_lrpe_list=[1, 0]),
        dict(decoder_attention_heads=6),
        dict(decoder_embed_dim=48),
        dict(linear_use_lrpe_list=[1, 0, 1]),
        dict(linear_use_lrpe_list=[0, 0, 0]),
        dict(linear_use_lrpe_list=[2, 0, 0]),
    ],
    ids=str,
)
def test_a_config_that_lies_is_refused(lie, tmp_path):
    form = "TransNormerLLM-385M"
    config = released.config_of(form) | lie
    if lie.get("decoder_layers", 0) > 3:
        del config["linear_use_lrpe_list"]
    released.write_folder(tmp_path / form, form, released.random_tensors(form), config)
    with pytest.raises(ValueError, match="tensor|config.json") as caught:
        TransNormerLLM.from_pretrained(tmp_path / form)
    assert len(str(caught.value).splitlines()) == 1


def bin_of(folder, tensors, config=None):
    folder.mkdir()
    config = config or released.config_of("TransNormerLLM-385M")
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


class Program:
    """In a pickle: a call, made by whoever reads it as pickles are usually read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_program_in_a_pickle_is_not_run_and_named(as_zip, tmp_path):
    tensors = released.random_tensors("TransNormerLLM-385M")
    folder, mark = bin_of(tmp_path / "m", tensors), tmp_path / "mark"
    path = folder / "pytorch_model.bin"
    torch.save(tensors | {"x": Program(mark)}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(ValueError, match=r"_model.bin cannot be .* wants \S+mkdir to be called"):
        TransNormerLLM.from_pretrained(folder)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # as it would have been


L1 = "model.layers.0.channel_mixer.l1.weight"


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda t: t[:1, :1].clone().expand(40, 24), f"{L1} has not all of its numbers"),
        (lambda t: t.to("meta"), f"{L1} has not all of its numbers"),
        (lambda t: t.to_sparse(), f"{L1} has not all of its numbers"),
        (lambda t: t.half(), f"{L1} is torch.float16, and .* torch.float32; say in which one"),
        (lambda t: t.to(torch.float8_e4m3fn), f"{L1} is torch.float8_e4m3fn, and "),
        (lambda t: t.to(torch.complex64), f"{L1} is torch.complex64, expected floating"),
    ],
    ids=["overlapping", "meta", "sparse", "half", "float8", "complex"],
)
def test_tensors_of_other_kinds_are_named(change, sentence, tmp_path):
    tensors = released.random_tensors("TransNormerLLM-385M")
    folder = bin_of(tmp_path / "m", tensors | {L1: change(tensors[L1])})
    with pytest.raises(ValueError, match=f"pytorch_model.bin.*{sentence}"):
        TransNormerLLM.from_pretrained(folder)


def test_several_types_become_the_one_that_was_asked_for(tmp_path):
    tensors = released.random_tensors("TransNormerLLM-385M")
    tensors[L1] = tensors[L1].half()
    model = TransNormerLLM.from_pretrained(bin_of(tmp_path / "m", tensors), "float32")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tensors = {name: t.half() for name, t in tensors.items() if "theta" not in name} | {
        name: t for name, t in tensors.items() if "theta" in name
    }  # angles may be kept with more digits
    model = TransNormerLLM.from_pretrained(bin_of(tmp_path / "n", tensors))
    assert model(torch.tensor([IDS])).dtype == torch.float16


def test_a_compressed_record_is_refused_unread(tmp_path):
    """A few bytes may be said to be a thousand times as many."""
    folder = bin_of(tmp_path / "m", released.random_tensors("TransNormerLLM-385M"))
    with zipfile.ZipFile(folder / "pytorch_model.bin", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pytorch_model/more", bytes(1000))
    with pytest.raises(ValueError, match="its record pytorch_model/more is compressed"):
        TransNormerLLM.from_pretrained(folder)


def test_json_that_is_nested_without_end(tmp_path):
    folder = bin_of(tmp_path / "m", {})
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="config.json is not whole JSON"):
        TransNormerLLM.from_pretrained(folder)


def test_a_hub_id_is_downloaded_without_any_program(tmp_path, monkeypatch):
    asked, left_out = {}, []

    def download(name, allow_patterns, ignore_patterns):
        asked[name] = allow_patterns
        left_out.append(ignore_patterns)
        if not (tmp_path / "m").exists():
            released.write_folder(tmp_path / "m", form, released.random_tensors(form))
        return str(tmp_path / "m")

    form = "TransNormerLLM-385M"
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model = TransNormerLLM.from_pretrained("OpenNLPLab/TransNormerLLM-385M", "float64")
    assert model.config.dim == 24
    (patterns,) = asked.values()
    for wanted in ("config.json", "pytorch_model-00001-of-00002.bin", "tokenizer.model"):
        assert any(fnmatch(wanted, pattern) for pattern in patterns)
    assert not any(fnmatch("modeling_transnormer.py", pattern) for pattern in patterns)
    with pytest.raises(FileNotFoundError, match="there is no folder step1"):
        TransNormerLLM.from_pretrained("OpenNLPLab/TransNormerLLM-385M", subfolder="step1")
    (patterns,) = asked.values()
    assert left_out[0] == ["*/*.bin", "*/*.safetensors"] and left_out[1] is None
    assert any(fnmatch("step1/pytorch_model.bin", pattern) for pattern in patterns)
    assert not any(fnmatch("step2/pytorch_model.bin", pattern) for pattern in patterns)


def test_without_a_network_a_hub_id_is_answered_with_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="is no folder here, and Hugging Face's hub did not") as said:
        TransNormerLLM.from_pretrained("OpenNLPLab/TransNormerLLM-385M")
    assert len(str(said.value).splitlines()) == 1


def test_a_config_in_json_that_is_no_object_of_ours(tmp_path):
    form = "TransNormerLLM-7B-GPTQ"
    tensors = released.random_tensors(form)
    for said, sentence in (
        ("gptq", "quantization_config is 'gptq', expected an object"),
        ({"quant_method": "awq"}, "quant_method 'awq'; only 'gptq' is read here"),
        ({"quant_method": "gptq"}, "lacks bits"),
        ({"bits": 3}, "bits is 3, expected one of 2, 4, 8"),
        ({"bits": 4, "checkpoint_format": "gptq_v2"}, "checkpoint_format 'gptq_v2'; only"),
        ({"bits": 4, "group_size": 0}, "group_size is 0"),
    ):
        folder = tmp_path / json.dumps(said).replace("/", "")
        config = released.config_of(form) | {"quantization_config": said}
        released.write_folder(folder, form, tensors, config)
        with pytest.raises(ValueError, match=sentence):
            TransNormerLLM.from_pretrained(folder)
