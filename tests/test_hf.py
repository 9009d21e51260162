"""Hugging Face's library drives our models: Auto classes, generate, beams, left padding."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import released
from tests.models import linear, tokens
from tests.test_gptq import gptq_folder
from transnormer_edu import TransNormerLLM, generate

transformers = pytest.importorskip("transformers")
GOLDEN = Path(__file__).parent / "data" / "released_small"


@pytest.fixture(scope="module")
def golden():
    import transnormer_edu.hf  # noqa: F401

    model = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN)
    return model, load_file(GOLDEN / "expected.safetensors")


def hf(model):
    from transnormer_edu.hf import HFConfig, HFTransNormer

    return HFTransNormer(HFConfig.of(model.config), model).eval()


def test_the_auto_classes_give_the_original_codes_numbers(golden):
    model, expected = golden
    config = transformers.AutoConfig.from_pretrained(GOLDEN)
    assert config.own() == TransNormerLLM.from_pretrained(GOLDEN).config
    with torch.no_grad():
        out = model(expected["input_ids"], labels=expected["input_ids"])
    assert (out.logits - expected["logits_prefill"]).abs().max() <= 2e-6
    shifted = torch.nn.functional.cross_entropy(
        expected["logits_prefill"][0, :-1], expected["input_ids"][0, 1:]
    )
    torch.testing.assert_close(out.loss, shifted)


def test_generate_is_greedy_twice_and_goes_on(golden):
    model, expected = golden
    prompt, wanted = expected["greedy_prompt"], expected["greedy_tokens"]
    for _ in range(2):  # the original's second generation goes wrong
        new = model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None)
        assert torch.equal(new[:, prompt.shape[1] :], wanted)
    half = model.generate(
        prompt, max_new_tokens=10, do_sample=False, eos_token_id=None,
        return_dict_in_generate=True,
    )  # fmt: skip
    rest = model.generate(
        half.sequences, past_key_values=half.past_key_values, max_new_tokens=14,
        do_sample=False, eos_token_id=None,
    )  # fmt: skip
    assert torch.equal(rest[:, prompt.shape[1] :], wanted)


def padded(prompts):
    n = max(map(len, prompts))
    ids = torch.zeros(len(prompts), n, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, n - len(prompt) :], mask[row, n - len(prompt) :] = prompt, 1
    return ids, mask


def test_left_padded_batches(golden):
    prompts = [tokens(n, seed=n) for n in (9, 2, 30)]
    for own in (linear(), linear(block="parallel"), linear(gate=4)):
        ids, mask = padded(prompts)
        new = hf(own).generate(
            ids, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=None
        )
        assert torch.equal(new[:, ids.shape[1] :], generate(own, prompts, 8, stop_tokens=()))


def beams_by_hand(model, prompt, beams: int, steps: int) -> list[int]:
    """The most likely continuation, every beam read again from its first token at each step."""
    live = [((), 0.0)]
    for _ in range(steps):
        reached = []
        for text, score in live:
            row = torch.cat([prompt, torch.tensor(text, dtype=torch.long)])
            shares = model(row[None])[0, -1].log_softmax(-1)
            reached += [((*text, i), score + shares[i].item()) for i in range(len(shares))]
        live = sorted(reached, key=lambda beam: -beam[1])[:beams]
    return list(live[0][0])


@torch.no_grad()
def test_beam_search_reorders_the_state():
    own = linear()
    prompts = [tokens(n, seed=n) for n in (5, 12)]
    ids, mask = padded(prompts)
    new = hf(own).generate(
        ids, attention_mask=mask, num_beams=5, max_new_tokens=7, do_sample=False,
        eos_token_id=None, length_penalty=0.0,
    )  # fmt: skip
    greedy = generate(own, prompts, 7, stop_tokens=())
    found = new[:, ids.shape[1] :]
    for row, prompt in enumerate(prompts):
        assert found[row].tolist() == beams_by_hand(own, prompt, 5, 7)
    assert not torch.equal(found, greedy)  # else a wrong order could not be seen


def test_a_saved_folder_has_the_layout_of_the_released_one(golden, tmp_path):
    model, expected = golden
    model.save_pretrained(tmp_path / "m")
    released = torch.load(GOLDEN / "pytorch_model.bin", weights_only=True)
    written = load_file(tmp_path / "m" / "model.safetensors")
    assert written.keys() == released.keys() - {"lm_head.weight"}  # tied; absent from some files
    assert all(torch.equal(tensor, released[name]) for name, tensor in written.items())
    theirs, ours = (json.loads((f / "config.json").read_text()) for f in (GOLDEN, tmp_path / "m"))
    same = theirs.keys() - {"use_cache", "torch_dtype", "transformers_version", "add_bos_token"}
    assert {k: ours[k] for k in same} == {k: theirs[k] for k in same} | {
        "linear_act_fun": ours["linear_act_fun"]
    }
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype="float64")
    assert again.dtype == torch.float64
    with torch.no_grad():
        wide = again(expected["input_ids"]).logits
    assert (wide - expected["logits_prefill"]).abs().max() <= 2e-5


@torch.no_grad()
def test_4_bits_a_later_series_and_a_revision(tmp_path):
    from transnormer_edu.hf import HFTransNormer

    folder, *_ = gptq_folder(tmp_path)
    auto, ids = transformers.AutoModelForCausalLM.from_pretrained, tokens(2, 5)
    model, own = auto(folder, dtype="float32"), TransNormerLLM.from_pretrained(folder, "float32")
    assert torch.equal(model(ids).logits, own(ids))
    new = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert torch.equal(new[:, 5:], generate(own, ids, 4, stop_tokens=()))
    second, third = "TransNormerLLM2-1B-300B", "TransNormerLLM3-15B-Intermediate-Checkpoints"
    released.write_folder(tmp_path / second, second, released.random_tensors(second))
    read = auto(tmp_path / second, variant="transnormerllm2")
    assert read.network.config.block == "parallel"
    step = tmp_path / third / "step1"
    released.write_folder(step, third, released.random_tensors(third))
    which = dict(variant="transnormerllm3", subfolder="step1")
    assert auto(tmp_path / third, **which).network.config.gate == 16
    (step / "config.json").replace(tmp_path / third / "config.json")
    assert HFTransNormer.from_pretrained(tmp_path / third, **which).network.config.gate == 16


def test_a_device_is_named_in_each_way_that_others_do():
    """lm-evaluation-harness, for one, maps the empty name to its device."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    import transnormer_edu.hf  # noqa: F401

    for where in ("cpu", {"": "cpu"}, {"model": torch.device("meta"), "": torch.device("meta")}):
        name = where if isinstance(where, str) else str(where[""])
        assert load(GOLDEN, device_map=where).device.type == name
    with pytest.raises(ValueError, match="device_map is .*'disk'.*; expected one device, as in"):
        load(GOLDEN, device_map={"model": "cpu", "lm_head": "disk"})


@torch.no_grad()
def test_a_vocabulary_that_grew_is_saved_as_such(tmp_path):
    from transnormer_edu.hf import HFTransNormer

    model = HFTransNormer.from_pretrained(GOLDEN)
    model.resize_token_embeddings(160, mean_resizing=False)
    ids = torch.tensor([[5, 159, 7]])
    logits = model(ids).logits
    assert logits.shape == (1, 3, 160)
    model.save_pretrained(tmp_path)
    assert torch.equal(TransNormerLLM.from_pretrained(tmp_path)(ids), logits)


def test_the_library_divides_the_loss_by_its_accumulation_steps():
    assert hf(linear()).accepts_loss_kwargs is False  # Trainer looks for it: the loss is a mean


def test_the_loss_leaves_padding_out():
    own = linear()
    ids, mask = padded([tokens(n, seed=n) for n in (5, 12)])
    out = hf(own)(ids, attention_mask=mask, labels=ids)
    loss, logits, _ = hf(own)(ids, attention_mask=mask, labels=ids, return_dict=False)
    assert torch.equal(loss, out.loss) and torch.equal(logits, out.logits)
    torch.testing.assert_close(out.loss, own(ids, labels=ids, attention_mask=mask))
    assert torch.equal(hf(own)(ids, attention_mask=mask, labels=ids.int()).loss, loss)


def test_gradients_reach_every_parameter(golden):
    model = hf(linear(torch.float32))
    model(tokens(2, 9), labels=tokens(2, 9)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    names = {name for name, _ in model.named_parameters()}
    assert names == {name for name, _ in model.network.named_parameters()}


def test_without_transformers_there_is_a_sentence(monkeypatch):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "transnormer_edu.hf", raising=False)
    with pytest.raises(ImportError, match="needs transformers .* pip install"):
        importlib.import_module("transnormer_edu.hf")
