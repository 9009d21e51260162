"""The weights in the package are what their card says."""

import csv
import itertools
import json
import re
from functools import partial
from pathlib import Path
from statistics import fmean

import pytest
import torch

from transnormer_edu import TransNormerConfig, TransNormerLLM, weights
from transnormer_edu.attention import linear_attention
from transnormer_edu.data import load_corpus
from transnormer_edu.evaluate import evaluate
from transnormer_edu.released_config import config_from_json
from transnormer_edu.run_folder import read_notes
from transnormer_edu.settings import TrainSettings
from transnormer_edu.tokenizer import Tokenizer
from transnormer_edu.train import Trainer, load_trained
from transnormer_edu.weights import NAMES, small_model_folder

FP32 = Path(weights.__file__).parent / "fp32"


@pytest.fixture(params=NAMES)
def folder(request):
    return small_model_folder(request.param)


def test_they_are_small_and_say_where_they_come_from(folder):
    assert sum(f.stat().st_size for f in folder.iterdir()) < 8e6
    notes, log = read_notes(folder), json.loads((folder / "log.json").read_text())
    assert notes["corpus"] == log["corpus"]
    assert notes["settings"] == log["settings"]
    card = (folder / "README.md").read_text()
    assert notes["corpus"]["sha256"] in card
    assert f"{notes['held_out']['bits_per_byte']:.3f}" in card


def test_the_log_is_of_that_run(folder):
    notes = read_notes(folder)
    lines = list(csv.DictReader((folder / "log.csv").open()))
    assert [int(line["step"]) for line in lines] == list(range(1, notes["settings"]["steps"] + 1))
    scores = [float(s) for line in lines if (s := line["held_out_bits_per_byte"])]
    assert min(scores) == notes["held_out"]["bits_per_byte"]


def test_they_score_what_the_log_says(folder):
    """On the same corpus to the digit; another Python carries slightly other docstrings."""
    notes, corpus = read_notes(folder), load_corpus("english")
    model, tokenizer = load_trained(folder)
    context = notes["settings"]["context"]
    score = evaluate(model, tokenizer, corpus.held_out_text, context, context, max_windows=64)
    near = 0.005 if corpus.fingerprint == notes["corpus"]["sha256"] else 0.2
    assert score.bits_per_byte == pytest.approx(notes["held_out"]["bits_per_byte"], abs=near)


@pytest.mark.slow  # three times a hundred steps: 3 minutes on two cores
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("logged", sorted(FP32.iterdir()), ids=lambda folder: folder.name)
def test_a_hundred_steps_in_fp32_follow_the_log(logged, monkeypatch):
    about, corpus = json.loads((logged / "settings.json").read_text()), load_corpus("english")
    if corpus.fingerprint != about["corpus"]["sha256"]:
        pytest.skip(f"logged for Python {about['python']}: this one carries another text")
    config = config_from_json(TransNormerConfig, about["config"])
    settings = TrainSettings.from_dict(about["settings"])
    assert settings.precision == "fp32" and not settings.uses_bf16()
    tokenizer = Tokenizer.train((d.text for d in corpus.train), config.vocab_size)
    assert tokenizer.fingerprint == about["tokenizer_sha256"]
    log, runs = _logged_losses(logged)["loss"], []
    for chunk_size in (64, 32, 128):
        other_chunks = partial(linear_attention, chunk_size=chunk_size)
        monkeypatch.setattr("transnormer_edu.lightning.linear_attention", other_chunks)
        torch.manual_seed(settings.seed)
        trainer = Trainer(TransNormerLLM(config), tokenizer, corpus, settings)
        runs.append([step.loss for step in itertools.islice(trainer, 100)])
        assert runs[-1][:30] == pytest.approx(log[:30], abs=1e-4)
    # Near step 38, at nearly the full rate, a rounding grows a thousandfold in a few steps: before
    # it losses are the same; after it one run is a throw, so a mean of runs is set beside the log,
    # which is one, too.
    mean = [fmean(step) for step in zip(*runs, strict=True)]
    assert _tens(mean) == pytest.approx(_tens(log), abs=0.02)


@pytest.mark.parametrize("logged", sorted(FP32.iterdir()), ids=lambda folder: folder.name)
def test_the_log_in_fp32_is_the_mean_of_runs_that_differ_in_rounding(logged):
    columns = _logged_losses(logged)
    mean, runs = columns.pop("loss"), list(columns.values())
    assert len(runs) >= 4 and all(len(run) == 100 for run in runs)
    assert mean == pytest.approx([fmean(step) for step in zip(*runs, strict=True)], abs=1e-6)
    assert all(run[:30] == pytest.approx(mean[:30], abs=1e-4) for run in runs)
    off = max(abs(a - b) for run in runs for a, b in zip(_tens(run), _tens(mean), strict=True))
    assert re.search(rf"`{logged.name}/`.*\| {off:.3f}\b", (FP32.parent / "README.md").read_text())


def _logged_losses(folder: Path) -> dict[str, list[float]]:
    """What a log holds: "loss", and the runs of which it is the mean."""
    with (folder / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    return {name: [float(line[name]) for line in lines] for name in lines[0] if name != "step"}


def _tens(losses: list[float]) -> list[float]:
    """The mean of every ten steps."""
    return [sum(losses[i : i + 10]) / 10 for i in range(0, len(losses), 10)]


def test_the_fp32_logs_are_of_the_same_run_as_the_weights():
    notes = read_notes(small_model_folder())
    for logged in FP32.iterdir():
        about = json.loads((logged / "settings.json").read_text())
        assert about["corpus"]["sha256"].startswith(logged.name)
        assert about["config"] == notes["config"]
        other = {"precision": "fp32", "device": "cpu", "eval_every": 0}
        assert about["settings"] == notes["settings"] | other


def test_they_were_trained_alike():
    notes = [read_notes(small_model_folder(name)) for name in NAMES]
    for field in ("corpus", "settings", "tokenizer_sha256"):
        assert notes[0][field] == notes[1][field] == notes[2][field]


@pytest.mark.bad_input
def test_an_unknown_name():
    with pytest.raises(ValueError, match="no small model 'gpt', expected one of transnormerllm"):
        small_model_folder("gpt")


def test_without_them_the_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("transnormer_edu.weights.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="train your own: transnormer-edu train"):
        small_model_folder()
