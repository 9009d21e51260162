"""Weights of 4 bits: the format number by number, and what rounding well is worth."""

import json
import shutil
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import released
from tests.models import softmax
from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.gptq import GPTQFormat, QuantLinear, pack, unpack
from transnormer_edu.quantise import grid, hessians, quantise, quantised

FORM = "TransNormerLLM-7B-GPTQ"
IDS = [5, 17, 3, 44, 3, 9, 52, 21, 8]


def dequantised_by_hand(stored: dict, name: str, bits: int = 4) -> torch.Tensor:
    """(out, in) from the published layout, number by number: no tensor arithmetic."""
    qweight, qzeros, scales, groups = (
        stored[f"{name}.{part}"].tolist() for part in ("qweight", "qzeros", "scales", "g_idx")
    )
    each, mask = 32 // bits, (1 << bits) - 1
    inputs, outputs = len(groups), len(qweight[0])
    weight = torch.empty(outputs, inputs, dtype=torch.float64)
    for i in range(inputs):
        for o in range(outputs):
            level = (qweight[i // each][o] % 2**32) >> (bits * (i % each)) & mask
            stored_zero = (qzeros[groups[i]][o // each] % 2**32) >> (bits * (o % each)) & mask
            weight[o, i] = scales[groups[i]][o] * (level - (stored_zero + 1))
    return weight


def random_stored(inputs: int, outputs: int, group_size: int, shuffled: bool, seed=0) -> dict:
    draw = torch.Generator().manual_seed(seed)
    whole = lambda *shape: torch.randint(-(2**31), 2**31, shape, generator=draw).int()  # noqa: E731
    groups = inputs // group_size
    group = torch.arange(inputs, dtype=torch.int32) // group_size
    if shuffled:
        group = group[torch.randperm(inputs, generator=draw)]
    zeros = torch.randint(0, 15, (groups, outputs), generator=draw)
    return {
        "qweight": whole(inputs // 8, outputs),
        "qzeros": sum(zeros[:, i::8] << 4 * i for i in range(8)).to(torch.int32),
        "scales": (0.01 + 0.05 * torch.rand(groups, outputs, generator=draw)).half(),
        "g_idx": group,
    }


def gptq_folder(tmp_path, shuffled=True, quantise_config=False, bias=True):
    """As AutoGPTQ writes one: every matrix of a block in 4 bits, all else in float16."""
    tensors, plain = {}, {}
    for number, (name, tensor) in enumerate(released.random_tensors(FORM).items()):
        base = name.removesuffix(".weight")
        if "_proj" in name or "channel_mixer" in name:
            outputs, inputs = tensor.shape
            stored = random_stored(inputs, outputs, 8, shuffled, seed=number)
            tensors |= {f"{base}.{part}": numbers for part, numbers in stored.items()}
            if bias:
                tensors[base + ".bias"] = torch.zeros(outputs).half()
            plain[name] = dequantised_by_hand(tensors, base)
        else:
            tensors[name], plain[name] = tensor.half(), tensor.half()
    about = {"bits": 4, "group_size": 8, "desc_act": shuffled, "sym": False, "damp_percent": 0.01}
    config = released.config_of(FORM)
    if not quantise_config:
        config |= {"quantization_config": about | {"quant_method": "gptq"}}
    folder = tmp_path / FORM
    released.write_folder(folder, FORM, tensors, config)
    if quantise_config:
        (folder / "quantize_config.json").write_text(json.dumps(about))
    return folder, plain, tensors, config


@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("quantise_config", [True, False])
def test_a_folder_in_autogptqs_form_gives_the_computed_logits(shuffled, quantise_config, tmp_path):
    folder, plain, _, config = gptq_folder(tmp_path, shuffled, quantise_config)
    model = TransNormerLLM.from_pretrained(folder, torch.float64)
    expected = released.forward(plain, config, IDS)
    torch.testing.assert_close(model(torch.tensor([IDS]))[0], expected, rtol=1e-9, atol=1e-9)
    assert model.config.quantization == GPTQFormat(4, 8, shuffled)


def test_4_bit_weights_stay_4_bit_and_are_saved_as_such(tmp_path):
    folder, _, tensors, _ = gptq_folder(tmp_path)
    model = TransNormerLLM.from_pretrained(folder)
    layer = model.model["layers"][1].channel_mixer.l2
    assert isinstance(layer, QuantLinear) and layer.qweight.dtype == torch.int32
    model.save_pretrained(tmp_path / "again")
    again = TransNormerLLM.from_pretrained(tmp_path / "again")
    assert again.config == model.config
    state = again.state_dict()
    assert all(torch.equal(state[n], t) for n, t in tensors.items() if not n.endswith("bias"))


@pytest.mark.bad_input
def test_a_new_model_has_no_few_bits_yet(tmp_path):
    few = GPTQFormat(np.int64(4), np.int64(8))
    assert json.dumps([few.bits, few.group_size]) == "[4, 8]"
    model = TransNormerLLM(TransNormerConfig(37, 16, 1, 2, quantization=few))
    assert model.config.quantization is None
    assert isinstance(model.model["layers"][0].token_mixer.qkvu_proj, torch.nn.Linear)
    model.save_pretrained(tmp_path)
    assert TransNormerLLM.from_pretrained(tmp_path).config == model.config


def test_plain_weights_are_not_called_4_bit(tmp_path):
    config = released.config_of(FORM) | {"quantization_config": {"bits": 4, "quant_method": "gptq"}}
    released.write_folder(tmp_path / FORM, FORM, released.random_tensors(FORM), config)
    with pytest.raises(ValueError, match="safetensors: tensor .* but .*config.json says 4 bits"):
        TransNormerLLM.from_pretrained(tmp_path / FORM)


def test_4_bit_weights_in_shards_or_in_two_kinds_of_file(tmp_path):
    folder, _, tensors, _ = gptq_folder(tmp_path)
    model = TransNormerLLM.from_pretrained(folder, torch.float64)
    whole = folder / "gptq_model-4bit-8g.safetensors"
    shutil.copytree(folder, tmp_path / "both")
    (tmp_path / "both" / "gptq_model-4bit-8g.bin").write_bytes(b"older")
    whole.unlink()
    names, where = list(tensors), {}
    for i in range(2):
        shard = f"gptq_model-4bit-8g-0000{i + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names[i::2]}, folder / shard)
        where |= dict.fromkeys(names[i::2], shard)
    (folder / f"{whole.name}.index.json").write_text(json.dumps({"weight_map": where}))
    for other in (folder, tmp_path / "both"):
        state = TransNormerLLM.from_pretrained(other, torch.float64).state_dict()
        assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda t, n: t.update({n + ".bias": torch.ones(40).half()}), "l1.bias is not zero"),
        (
            lambda t, n: t.update({n + ".g_idx": torch.full((24,), 3).int()}),
            "8g.safetensors: tensor .*l1.g_idx names a gro",
        ),
        (
            lambda t, n: t.update({n + ".scales": t[n + ".scales"].int()}),
            "l1.scales is torch.i",
        ),
        (
            lambda t, n: t.update({n + ".qweight": t[n + ".qweight"].long()}),
            "l1.qweight is torch.i",
        ),
        (lambda t, n: t.update({n + ".qzeros": t[n + ".qzeros"][:1]}), "l1.qzeros has shape"),
        (lambda t, n: t.pop(n + ".qzeros"), "8g.safetensors: .*l1.qzeros is missing"),
        (lambda t, n: t.pop(n + ".qweight"), "l1.weight is missing; .* have .*l1"),
    ],
)
def test_damaged_4_bit_weights_are_named(change, sentence, tmp_path):
    _, _, tensors, config = gptq_folder(tmp_path)
    change(tensors, "model.layers.1.channel_mixer.l1")
    released.write_folder(tmp_path / "wrong", FORM, tensors, config)
    with pytest.raises(ValueError, match=sentence):
        TransNormerLLM.from_pretrained(tmp_path / "wrong")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packing_is_undone_by_unpacking(bits):
    levels = torch.randint(0, 2**bits, (5, 64), generator=torch.Generator().manual_seed(0)).int()
    packed = pack(levels, bits)
    assert packed.dtype == torch.int32 and packed.shape == (5, 64 * bits // 32)
    assert torch.equal(unpack(packed, bits), levels)
    lowest = torch.zeros(1, 32 // bits, dtype=torch.int32)
    lowest[0, 0] = 1
    assert pack(lowest, bits).item() == 1  # the first stands in the lowest bits


@pytest.mark.parametrize("bits, group_size", [(4, 16), (8, 16), (2, 24), (4, -1)])
def test_rounding_to_the_nearest_is_off_by_half_a_level(bits, group_size):
    weight = torch.randn(16, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[3] = weight[3].abs()  # its zero would be level 0
    weight[4] = -weight[4].abs()
    weight[5] = 0
    form = GPTQFormat(bits, group_size)
    layer = quantised(weight, form)
    scale = layer.scales.double().T[:, layer.g_idx.long()]
    half = 0.5 + 2**bits / 2**11  # the scale itself is rounded to float16
    assert ((layer.weight(torch.float64) - weight).abs() <= half * scale + 1e-12).all()
    stored = {f"x.{name}": t for name, t in layer.state_dict().items()}
    by_hand = dequantised_by_hand(stored, "x", bits)
    assert torch.equal(layer.weight(torch.float64), by_hand)  # so no stored zero is 2^bits - 1
    assert len(layer.scales) == form.groups(48)


def test_gptq_makes_up_for_its_errors():
    """On inputs that depend on each other the outputs are nearer than with the nearest levels."""
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(24, 40, generator=draw, dtype=torch.float64)
    mixing = torch.randn(40, 40, generator=draw, dtype=torch.float64)
    x = torch.randn(300, 9, generator=draw, dtype=torch.float64) @ mixing[:9]
    x += 0.1 * torch.randn(300, 40, generator=draw, dtype=torch.float64)
    loss = lambda layer: (x @ (layer.weight(torch.float64) - weight).T).square().mean()  # noqa: E731
    nearest = loss(quantised(weight, GPTQFormat(4, 8)))
    for desc_act in (False, True):
        gptq = loss(quantised(weight, GPTQFormat(4, 8, desc_act), x.T @ x))
        assert gptq < 0.6 * nearest


def test_each_rounding_is_the_best_reply_to_those_before():
    """The weights that are left solve a least squares problem: minimise e H e^T, e fixed so far."""
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn(8, 16, generator=draw, dtype=torch.float64)
    x = torch.randn(50, 16, generator=draw, dtype=torch.float64)
    h = x.T @ x
    found = quantised(weight, GPTQFormat(4, -1), h).weight(torch.float64)
    h = h + 0.01 * h.diagonal().mean() * torch.eye(16, dtype=torch.float64)
    scale, zero = grid(weight, 4)
    for o in range(8):
        done = []
        for i in range(16):
            # with e[:i] fixed the best e[i:] is -H[i:, i:]^-1 H[i:, :i] e[:i]
            error = torch.tensor(done, dtype=torch.float64) - weight[o, :i]
            best = weight[o, i:] - torch.linalg.solve(h[i:, i:], h[i:, :i] @ error)
            level = (best[0] / scale[o]).round().add(zero[o]).clamp(0, 15)
            done.append((scale[o] * (level - zero[o])).item())
        torch.testing.assert_close(found[o], torch.tensor(done, dtype=torch.float64))


def small_model():
    torch.manual_seed(0)
    sizes = dict(vocab_size=37, dim=16, layers=2, heads=2, glu_dim=24)
    model = TransNormerLLM(TransNormerConfig(**sizes)).double()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def test_a_model_of_ours_is_quantised_saved_and_opened(tmp_path):
    model, ids = small_model(), torch.randint(3, 37, (4, 30))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    x = torch.randn(4, 30, 16, dtype=torch.float64)
    seen = hessians(model.model["layers"][1], x, torch.arange(30))
    assert {name: h.shape[0] for name, h in seen.items()} == {
        "token_mixer.qkvu_proj": 16, "token_mixer.out_proj": 16,
        "channel_mixer.l1": 16, "channel_mixer.l2": 16, "channel_mixer.l3": 24,
    }  # fmt: skip
    rows = model.model["layers"][1].token_norm(x).flatten(0, 1)
    torch.testing.assert_close(seen["token_mixer.qkvu_proj"], rows.T @ rows)
    losses = {}
    for form, text in ((GPTQFormat(4, 8), None), (GPTQFormat(4, 8), ids), (GPTQFormat(8, 8), ids)):
        small = quantise(model, form, text)
        losses[form.bits, text is None] = (small(ids) - model(ids)).square().mean()
        small.save_pretrained(tmp_path / f"{form.bits} {text is None}")
        again = TransNormerLLM.from_pretrained(tmp_path / f"{form.bits} {text is None}")
        assert torch.equal(again(ids), small(ids)) and again.config.quantization == form
    assert losses[8, False] < losses[4, False] < losses[4, True]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.bad_input
def test_what_cannot_be_quantised_is_named():
    model = small_model()
    with pytest.raises(ValueError, match="the model is quantised already"):
        quantise(quantise(model, GPTQFormat(4, 8)))
    with pytest.raises(TypeError, match="model is a Transformer, expected a TransNormerLLM"):
        quantise(softmax())
    with pytest.raises(ValueError, match="got ids .* of torch.float32"):
        quantise(model, calibration=torch.ones(1, 5))
    odd = TransNormerLLM(TransNormerConfig(vocab_size=37, dim=18, layers=1, heads=3, glu_dim=22))
    with pytest.raises(ValueError, match="18 inputs and 72 outputs cannot be stored in 4 bits"):
        quantise(odd)


def autogptqs_layer():
    """AutoGPTQ's layer in plain PyTorch, from its own file: the package needs more."""
    folder = Path(find_spec("auto_gptq").submodule_search_locations[0])
    path = folder / "nn_modules" / "qlinear" / "qlinear_cuda.py"
    spec = spec_from_file_location("autogptqs_layer", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.QuantLinear


# To run it: BUILD_CUDA_EXT=0 pip install --no-build-isolation --no-deps auto-gptq
AUTOGPTQ = pytest.mark.skipif(find_spec("auto_gptq") is None, reason="AutoGPTQ is not installed")


@AUTOGPTQ
@pytest.mark.parametrize("shuffled", [True, False])
def test_we_read_weights_as_autogptq_does(shuffled):
    stored = random_stored(64, 96, 16, shuffled)
    theirs = autogptqs_layer()(4, 16, 64, 96, bias=False, weight_dtype=torch.float32)
    theirs.load_state_dict(stored)
    theirs.autogptq_cuda_available = False
    ours = QuantLinear(64, 96, GPTQFormat(4, 16, shuffled))
    ours.load_state_dict(stored)
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(ours(x), theirs(x).float(), rtol=1e-5, atol=1e-5)


@AUTOGPTQ
@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("bits, group_size", [(2, 16), (4, 16), (8, 32), (4, -1)])
def test_autogptq_reads_what_we_write(bits, group_size, shuffled):
    draw = torch.Generator().manual_seed(5)
    weight, x = torch.randn(96, 64, generator=draw), torch.randn(7, 64, generator=draw)
    ours = quantised(weight, GPTQFormat(bits, group_size, shuffled), x.T.double() @ x.double())
    theirs = autogptqs_layer()(bits, group_size, 64, 96, bias=False, weight_dtype=torch.float32)
    theirs.autogptq_cuda_available = False
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x).float(), rtol=1e-5, atol=1e-5)
