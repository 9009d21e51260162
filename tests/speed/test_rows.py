"""What `bench train|decode|prefill` measures is what it says; no time is compared with anything."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from tests.models import softmax, tokens
from transnormer_edu import TransNormerConfig
from transnormer_edu.cli import app
from transnormer_edu.config import PRESETS
from transnormer_edu.speed import contestants, decoding, prefill, results, training
from transnormer_edu.speed.results import Results

CPU = torch.device("cpu")
TINY = TransNormerConfig(vocab_size=50, dim=32, layers=2, heads=2, glu_dim=64)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "copy_rate", lambda device: 1e9)
    monkeypatch.setattr(results, "matmul_rate", lambda device: 1e10)
    monkeypatch.setattr(training, "TIMED", 2)
    monkeypatch.setattr(decoding, "TIMES", 2)
    return Results(tmp_path / "speed.json", CPU, "tiny")


def stored(file):
    return json.loads(file.path.read_text())["rows"]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "15b"])  # its gate is thin
def test_the_twin_has_as_many_parameters(preset):
    config = TransNormerConfig.preset(preset)
    ours, twin = (
        contestants.parameters(contestants.build(name, config, torch.device("meta")))
        for name in ("ours", "twin")
    )
    assert abs(twin / ours - 1) < 0.005


def test_training_rows(file):
    names = contestants.present(("ours", "twin", "llama"))
    lines = list(training.rows(file, TINY, names, (8, 16), 32, 2))
    lines += training.rows(file, TINY, names, (12, 8), 32, 2)  # no whole windows of 12: no row
    assert len(lines) == len(stored(file)) == 2 * len(names)
    for row in stored(file):
        assert "skipped" not in row, row
        assert row["batch"] * row["parts"] * row["context"] == row["tokens_per_update"] == 32
        assert row["tokens_per_s"] == pytest.approx(1e3 * 32 / row["ms"])
        share = 6 * row["parameters"] * row["tokens_per_s"] / 1e10
        assert row["of_matmul_rate"] == pytest.approx(share)
        assert row["loss_gap"] < 1e-5
        assert ("softmax" in row) == (row["model"] != "ours")


def test_where_memory_ends_an_update_has_more_parts(file, monkeypatch):
    measure = training.measure

    def in_little_memory(name, config, row, device, compiled):
        if row["batch"] > 1:
            raise torch.OutOfMemoryError("too much")
        return measure(name, config, row, device, compiled)

    monkeypatch.setattr(training, "measure", in_little_memory)
    list(training.rows(file, TINY, ("twin",), (8,), 32, 1))
    assert [row["parts"] for row in stored(file)] == [1, 2, 4]
    assert ["skipped" in row for row in stored(file)] == [True, True, False]


def test_llama_is_the_twin_to_the_size():
    if "llama" not in contestants.present(("llama",)):
        pytest.skip("transformers is not installed")
    llama, twin = (contestants.build(name, TINY, CPU) for name in ("llama", "twin"))
    assert contestants.parameters(llama) == contestants.parameters(twin)


@torch.no_grad()
def test_llama_without_a_mask_is_causal_and_says_what_it_says_with_one():
    if "llama" not in contestants.present(("llama",)):
        pytest.skip("transformers is not installed")
    llama, ids = contestants.build("llama", TINY, CPU), tokens(2, 12)
    other = torch.cat([ids[:, :9], ids[:, 9:].flip(0)], dim=1)
    alone, changed = (llama.whole(x).logits for x in (ids, other))
    assert torch.equal(alone[:, :9], changed[:, :9]) and not torch.equal(alone, changed)
    llama.whole.set_attn_implementation("eager")  # with a mask of transformers' own
    torch.testing.assert_close(llama.whole(ids).logits, alone)


def test_decoding_rows_begin_with_a_check_that_can_fail(file, monkeypatch):
    assert len(list(decoding.rows(file, TINY, ("ours", "twin"), (70,), (3, 20)))) == 5
    check, one, _, many, twin = stored(file)
    assert check["holds"] and one["errors"]["decoded"] < 1e-4
    assert one["errors"]["without the text"] > 0.01
    assert many["tokens_per_s"] == pytest.approx(3e3 / many["ms"])
    weights = 4 * contestants.parameters(contestants.build("twin", TINY, CPU))
    assert twin["of_weight_floor"] == pytest.approx(twin["ms"] * 1e-3 / (weights / 1e9))
    right = decoding.decoded
    monkeypatch.setattr(decoding, "decoded", lambda *given: right(*given).roll(1, dims=1))
    assert not decoding.check(TINY, file)["holds"]


@torch.no_grad()
def test_the_cache_decoder_is_the_twin():
    model, ids = softmax(), tokens(2, 12)
    _, state = model.next_token(ids[:, :-1])
    decoder = decoding.CacheDecoder(model, 11, 2)
    for cache, layer in zip(decoder.caches, state.layers, strict=True):
        cache[0][:, :, :-1], cache[1][:, :, :-1] = layer.k, layer.v
    for _ in range(2):  # always the same place
        torch.testing.assert_close(decoder(ids[:, -1]), model(ids)[:, -1])


@torch.no_grad()
def test_a_text_is_really_read_in_pieces(monkeypatch):
    monkeypatch.setattr(decoding, "PIECE", 7)
    model, ids = contestants.build("ours", TINY, CPU).double(), tokens(1, 40)
    state, whole = decoding.read_in_pieces(model, ids), model.next_token(ids)[1]
    assert int(state.position) == 40
    for ours, expected in zip(state.layers, whole.layers, strict=True):
        torch.testing.assert_close(ours, expected)
    empty = decoding.empty_state(model, 1, 40)
    assert [x.shape for x in empty.layers] == [x.shape for x in whole.layers]


def test_prefill_rows(file):
    lines = list(prefill.rows(file, TINY, ("ours", "twin", "llama"), (16,)))
    assert len(lines) == 2
    for row in stored(file):
        assert "skipped" not in row and row["errors"]["compiled"] < 1e-5
        assert row["tokens_per_s"] == pytest.approx(16e3 / row["ms"])


def test_a_row_that_fails_is_kept_as_such_and_the_others_go_on(file):
    def fail():
        raise RuntimeError("out of something")

    rows = [{"what": "train", "model": name, "context": 8} for name in ("ours", "twin")]
    said = [*file.add(rows[0], fail), *file.add(rows[1], lambda: {"ms": 2.0})]
    assert "skipped: RuntimeError: out of something" in said[0] and "2.000 ms" in said[1]
    assert [row.get("ms") for row in stored(file)] == [None, 2.0]


def test_a_row_that_is_there_is_not_measured_again_and_none_begins_too_late(file):
    row = {"what": "prefill", "model": "ours", "context": 8, "batch": 1}
    list(file.add(row, lambda: {"ms": 1.0}))
    again = Results(file.path, CPU, "tiny", seconds=0)
    assert list(again.add(row, lambda: 1 / 0)) == []
    assert "time is up" in next(again.add(row | {"batch": 2}, lambda: 1 / 0))
    assert stored(file) == [row | {"ms": 1.0}]


@pytest.mark.bad_input
def test_rows_of_another_machine_are_not_mixed_and_of_another_commit_say_so(file):
    list(file.add({"what": "train", "model": "ours"}, lambda: {"ms": 1.0}))
    later = Results(file.path, CPU, "tiny", commit="another")
    list(later.add({"what": "train", "model": "twin"}, lambda: {"ms": 2.0}))
    assert [row.get("commit") for row in stored(file)] == [None, "another"]
    with pytest.raises(ValueError, match="choose another file"):
        Results(file.path, CPU, "7b")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--models", "ours,theirs"], "theirs"),
        (["prefill", "--contexts", "8,x"], "expected lengths"),
        (["decode", "--size", "8b"], "no preset '8b'"),
        (["train", "--device", "abacus"], "device is 'abacus'"),
        (["train", "--contexts", "7"], "no context divides"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(arguments, words, tmp_path, file):
    out = ["--out", str(tmp_path / "out.json")]
    done = CliRunner().invoke(app, ["bench", *arguments, *out])
    assert done.exit_code == 1 and words in done.output


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_rows_on_a_gpu(tmp_path):
    file = Results(tmp_path / "gpu.json", torch.device("cuda"), "tiny")
    config = replace(TINY, dim=256, hidden_dim=256, glu_dim=128)
    names = contestants.present(contestants.NAMES)
    list(training.rows(file, config, names, (128, 256), 512, 1, compiled=True))
    list(decoding.rows(file, config, names, (128, 256), (12, 64)))
    list(prefill.rows(file, config, names, (128,)))
    for row in stored(file):
        assert "skipped" not in row and row.get("holds", True), row
