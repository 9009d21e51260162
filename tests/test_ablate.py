"""`ablate`: every row by one protocol, stopped at any moment, and the same when it goes on."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from transnormer_edu import ablate as command
from transnormer_edu.ablate import SMALL, Protocol, ablate
from transnormer_edu.ablation import Sizes
from transnormer_edu.ablation_data import tokens_in
from transnormer_edu.cli import app
from transnormer_edu.data import Corpus, Document

QUICK = replace(SMALL, tokens=1024, tuning_tokens=512, device="cpu")
ROWS = ("base", "transformer")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The sums of one thread are the same in every process of a machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_corpus(train_bytes, held_out_bytes):
    """Instead of reading all that is installed, which takes seconds."""
    numbers = [
        Document(f"p{i}/file", "".join(f"{j} times {i} is {i * j}\n" for j in range(30)))
        for i in range(40)
    ]
    return Corpus("installed", tuple(numbers[:30]), tuple(numbers[30:]))


@pytest.fixture(autouse=True)
def _small_corpus(monkeypatch):
    monkeypatch.setattr("transnormer_edu.ablation_data.installed_corpus", small_corpus)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An ablation that nobody disturbed."""
    folder = tmp_path_factory.mktemp("ablate") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transnormer_edu.ablation_data.installed_corpus", small_corpus)
        ablate(folder, QUICK, ROWS, commit="abc")
    return folder


def results(folder):
    """What must be the same to the bit: all but times."""
    found = json.loads((folder / "ablation.json").read_text())
    for row in found["rows"].values():
        for run in row["runs"]:
            del run["seconds"], run["where"]["date"]
    return found


def test_what_is_written(whole):
    found = results(whole)
    assert set(found["rows"]) == set(ROWS)
    for row in found["rows"].values():
        losses = [run["loss"] for run in row["runs"]]
        assert [run["seed"] for run in row["runs"]] == [1, 2]
        assert row["mean"] == pytest.approx(sum(losses) / 2)
        assert row["spread"] == pytest.approx(abs(losses[0] - losses[1]) / math.sqrt(2))
        rates = dict(row["tuning"]["losses"])
        assert set(rates) == {2e-3, 8e-3}
        assert row["learning_rate"] == min(rates, key=rates.get)
        assert row["tuning"]["at_an_end"]  # a grid of two has no inside
        for run in row["runs"]:
            assert [read for read, _ in run["curve"]] == [512, 1024]
            assert run["curve"][-1][1] == run["loss"]
            assert run["training_loss"][-1][0] == 1024
            assert run["where"]["device"] == "cpu" and run["where"]["commit"] == "abc"
    assert found["protocol"] == QUICK.as_dict()
    assert len(found["data"]["corpus_sha256"]) == len(found["data"]["tokens_sha256"]) == 64
    assert found["data"]["train_packages"] > 1
    assert all(name.startswith("p") for name in found["data"]["held_out_packages"])
    assert found["rows"]["transformer"]["config"]["model_type"] == "softmax_baseline"


def test_all_rows_read_the_same_batches_and_seeds_read_others(monkeypatch, whole, tmp_path):
    read = []

    class Spy(command.FastRun):
        def __init__(self, model, batches, settings, compiled):
            read.append((settings.seed, settings.steps, batches))
            super().__init__(model, batches, settings, compiled)

    monkeypatch.setattr(command, "FastRun", Spy)
    ablate(tmp_path / "new", QUICK, ROWS)
    first, second = read[:4], read[4:]
    for (seed, _, ours), (other, _, theirs) in zip(first, second, strict=True):
        assert seed == other and torch.equal(ours, theirs)
    assert [seed for seed, _, _ in first] == [0, 0, 1, 2]
    assert not torch.equal(first[2][2], first[3][2])
    windows = first[2][2].flatten(0, 1)
    assert len(windows) == 16 == len(torch.unique(windows, dim=0))  # one pass: nothing twice


def test_what_is_finished_is_not_done_again(monkeypatch, whole, tmp_path):
    monkeypatch.setattr(command, "train_once", lambda *_: pytest.fail("trained again"))
    before = results(whole)
    ablate(whole, QUICK, ROWS)
    assert results(whole) == before


PROGRAM = """
import os, signal, sys
import torch
from tests import test_ablate as t
from transnormer_edu import ablate, ablation_data
torch.set_num_threads(1)
ablation_data.installed_corpus = t.small_corpus
if sys.argv[2] == "training":          # in the middle of the first run with seed 2
    run = ablate.FastRun.run
    def dying(self, until):
        if self.settings.seed == 2 and self.done:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, until)
    ablate.FastRun.run = dying
if sys.argv[2] == "writing":           # its file half written
    from transnormer_edu import atomic
    class Dying(atomic._Witness):
        def write(self, data):
            if self.file.name.endswith("base-2.json.part"):
                super().write(data[: len(data) // 2])
                self.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().write(data)
    atomic._Witness = Dying
ablate.ablate(sys.argv[1], t.QUICK, t.ROWS, commit="abc")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("moment", ["training", "writing"])
def test_killed_it_goes_on_to_the_same_results(whole, tmp_path, moment):
    folder = tmp_path / "run"
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), moment],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    there = {path.name for path in (folder / "runs").glob("*.json")}
    assert there == {"base-tuning.json", "base-1.json"}
    kept = (folder / "runs" / "base-1.json").stat().st_mtime_ns
    ablate(folder, QUICK, ROWS, commit="abc")
    assert (folder / "runs" / "base-1.json").stat().st_mtime_ns == kept
    assert results(folder) == results(whole)


def test_two_processes_find_the_same(whole, tmp_path):
    tokens_in(tmp_path / "data", 1024, 2048, 64, 300)  # what they spawn has the real corpus
    ablate(tmp_path, QUICK, ROWS, jobs=2, commit="abc")
    ours, theirs = results(tmp_path)["rows"], results(whole)["rows"]
    for row in ROWS:
        assert ours[row]["mean"] == pytest.approx(theirs[row]["mean"], abs=1e-4)


def test_no_run_begins_when_time_is_up(tmp_path, whole):
    for minutes, expected in ((0.0, set()), (60.0, {"base-tuning.json", "base-1.json"})):
        protocol = replace(QUICK, seeds=(1,))
        ablate(tmp_path, protocol, ("base",), minutes=minutes)
        assert {path.name for path in (tmp_path / "runs").iterdir()} == expected


def test_a_run_that_diverges_is_said_to(monkeypatch, tmp_path):
    monkeypatch.setattr(command.FastRun, "held_out_loss", lambda self, windows: math.nan)
    found = ablate(tmp_path, replace(QUICK, seeds=(1, 2)), ("base",))["rows"]["base"]
    assert found["mean"] is None and found["runs"][0]["loss"] is None
    json.loads((tmp_path / "ablation.json").read_text(), parse_constant=pytest.fail)  # no NaN


@pytest.mark.bad_input
def test_results_of_another_protocol_or_corpus_are_not_mixed(whole, tmp_path):
    with pytest.raises(ValueError, match=r"was made for .*'train': 1024.*give another --out"):
        ablate(whole, replace(QUICK, tokens=2048), ROWS)
    with pytest.raises(ValueError, match=r"has protocol .*give another --out"):
        ablate(whole, replace(QUICK, rates=(1e-3,)), ROWS)
    path = whole / "runs" / "base-1.json"
    before = path.read_text()
    path.write_text(before.replace('"tokens_sha256": "', '"tokens_sha256": "another '))
    try:
        with pytest.raises(ValueError, match="has tokens_sha256 another .*give another --out"):
            ablate(whole, QUICK, ROWS)
    finally:
        path.write_text(before)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(tokens=0), "tokens is 0"),
        (dict(tuning_tokens=31_000_000), "tuning_tokens is 31000000, expected at most tokens"),
        (dict(held_out_tokens=1000), "held_out_tokens is 1000, expected whole windows of 512"),
        (dict(sizes=Sizes(vocab_size=40000)), "vocab_size is 40000, expected at most 32768"),
        (dict(seeds=()), "seeds are"),
        (dict(seeds=(1, 1)), "expected different ones"),
        (dict(seeds=(0, 1)), "none of them the seed of the tuning, 0"),
    ],
)
def test_a_protocol_that_cannot_work(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Protocol(**changes)
    with pytest.raises(ValueError, match="row is 'gru'"):
        ablate("nowhere", SMALL, ("gru",))


def test_the_command(tmp_path):
    arguments = ["ablate", "--rehearse", "--row", "norm", "--out", str(tmp_path)]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1 and "row is 'norm', expected one of base" in refused.output
    arguments[3] = "rmsnorm"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "rmsnorm seed 2 rate" in done.output
    assert f"{'SRMS':26}2.248  not trained" in done.output
