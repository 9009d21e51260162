"""The weights in the package are what their card says."""

import csv
import json

import pytest

from transnormer_edu.data import load_corpus
from transnormer_edu.evaluate import evaluate
from transnormer_edu.run_folder import read_notes
from transnormer_edu.train import load_trained
from transnormer_edu.weights import small_model_folder

FOLDER = small_model_folder()


def test_they_are_small_and_say_where_they_come_from():
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 8e6
    notes, log = read_notes(FOLDER), json.loads((FOLDER / "log.json").read_text())
    assert notes["corpus"] == log["corpus"]
    assert notes["settings"] == log["settings"]
    card = (FOLDER / "README.md").read_text()
    assert notes["corpus"]["sha256"] in card
    assert f"{notes['held_out']['bits_per_byte']:.3f}" in card


def test_the_log_is_of_that_run():
    notes = read_notes(FOLDER)
    lines = list(csv.DictReader((FOLDER / "log.csv").open()))
    assert [int(line["step"]) for line in lines] == list(range(1, notes["settings"]["steps"] + 1))
    scores = [float(s) for line in lines if (s := line["held_out_bits_per_byte"])]
    assert min(scores) == notes["held_out"]["bits_per_byte"]


def test_they_score_what_the_log_says_where_the_corpus_is_the_same():
    notes, corpus = read_notes(FOLDER), load_corpus("english")
    if corpus.fingerprint != notes["corpus"]["sha256"]:
        pytest.skip("this Python carries other docstrings than the one they were trained with")
    model, tokenizer = load_trained(FOLDER)
    context = notes["settings"]["context"]
    score = evaluate(model, tokenizer, corpus.held_out_text, context, context, max_windows=64)
    assert score.bits_per_byte == pytest.approx(notes["held_out"]["bits_per_byte"], abs=0.005)


def test_without_them_the_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("transnormer_edu.weights.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="train your own: transnormer-edu train"):
        small_model_folder()
