"""Text of any size to a file of tokens: the same ids as in memory, and whole or not at all."""

import io
import json
import subprocess
import sys
import time
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.models import linear
from transnormer_edu import text_pieces
from transnormer_edu.atomic import PART
from transnormer_edu.batches import Batches
from transnormer_edu.cli import app
from transnormer_edu.data import load_corpus
from transnormer_edu.prepare import _ahead, _sizes, prepare
from transnormer_edu.settings import TrainSettings
from transnormer_edu.text_pieces import Piece, text_files
from transnormer_edu.token_file import ABOUT, TOKENS, TokenFile, kind_of
from transnormer_edu.tokenizer import Tokenizer
from transnormer_edu.train import Trainer, resume

BYTES = Tokenizer.of_bytes()


def essay(first, paragraphs=60):
    """Words of several bytes, blank lines, indented lines, tabs: whatever a cut could trip over."""
    return "".join(
        f"{i} état λ{i * i}\n  indented {i}  twice\n\n{'' if i % 3 else chr(9)}end.  \n"
        for i in range(first, first + paragraphs)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "deep").mkdir()
    for name, first in (("a.txt", 0), ("b.txt", 500), ("deep/c.md", 900)):
        (folder / name).write_text(essay(first), encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "empty.txt").write_text("")
    (folder / ".hidden").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    return prepare([folder], tmp_path_factory.mktemp("prepared") / "out", vocab_size=300)


def pieces_of(files, size=100, every=10):
    return list(text_pieces.text_pieces(files, size, every))


# ---------------------------------------------------------------- pieces


@pytest.mark.parametrize("size", [1, 7, 64, 100, 10_000])
def test_the_pieces_of_a_file_are_its_text_and_give_its_tokens(folder, size):
    learned = Tokenizer.train([essay(0), essay(500)], 400)
    file, text = folder / "a.txt", essay(0)
    pieces = [piece.text for piece in pieces_of([file], size)]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= size
    if size >= 64:  # shorter ones cut through words
        rows = learned.encode_many(pieces)
        assert list(chain(*rows)) == learned.encode(text)


def test_documents_open_and_close_around_what_is_held_out(folder):
    pieces = pieces_of([folder / "a.txt", folder / "b.txt"], size=300)
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    assert [piece.number for piece in pieces if piece.held_out] == [
        n for n in range(len(pieces)) if n % 10 == 1
    ]
    for before, after in pairwise(pieces):
        assert before.closes == after.opens or before.held_out != after.held_out
        assert before.closes or not before.held_out
    assert pieces[0].opens and pieces[-1].closes
    texts = "".join("<" * p.opens + p.text + ">" * p.closes for p in pieces)
    assert texts.count("<") == texts.count(">")
    assert f"{essay(0)[-20:]}><{essay(500)[:20]}" in texts  # two files, two documents


def test_no_more_is_held_out_than_enough(folder, monkeypatch):
    monkeypatch.setattr(text_pieces, "MOST_HELD_OUT", 2)
    pieces = pieces_of([folder / "a.txt"], size=50)
    assert [piece.number for piece in pieces if piece.held_out] == [1, 11]
    assert len(pieces) > 40


def test_sizes_of_pieces():
    assert _sizes(None) == (16_384, 10)
    assert _sizes(10**6) == (16_384, 10)
    assert _sizes(400) == (20, 10)
    assert _sizes(8_192_000_000) == (16_384, 1000)  # 500 of them are held out, evenly spread


def test_folders_patterns_and_names(folder):
    everything = [folder / name for name in ("a.txt", "b.txt", "deep/c.md")]
    assert text_files([folder]) == everything
    assert text_files([str(folder / "**" / "*.*t*"), folder / "a.txt"])[:2] == everything[:2]
    other = folder / ".." / folder.name
    assert text_files([folder, other / "a.txt", other / "deep"]) == everything
    assert text_files([str(folder / "**" / "*.md"), str(folder / "deep" / "c.md"), "-"]) == [
        everything[2],
        "-",
    ]


def test_windows_line_ends_and_mark(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    assert pieces_of([tmp_path / "x.txt"])[0].text == "one\ntwo\n"


# ---------------------------------------------------------------- the file


def test_the_file_holds_the_ids_of_the_text(folder, prepared):
    size, every = _sizes(sum(file.stat().st_size for file in text_files([folder])))
    pieces = pieces_of(text_files([folder]), size, every)
    sides = {side: [p for p in pieces if p.held_out == side] for side in (False, True)}
    for side, ids in ((False, prepared.train), (True, prepared.held_out)):
        marked = "".join("\0" * p.opens + p.text + "\1" * p.closes for p in sides[side])
        documents = [document.removeprefix("\0") for document in marked.split("\1")[:-1]]
        assert torch.equal(ids.long(), prepared.tokenizer.encode_documents(documents))
        assert all(documents)
    assert prepared.held_out_text == "\n\n".join(piece.text for piece in sides[True])
    assert prepared.about["held_out_bytes"] == sum(len(p.text.encode()) for p in sides[True])
    assert prepared.train_bytes == sum(len(p.text.encode()) for p in sides[False])
    raw = np.fromfile(prepared.folder / TOKENS, dtype="<u2")
    assert raw.tolist() == prepared.ids.tolist()
    assert {file.name for file in prepared.folder.iterdir()} == {TOKENS, ABOUT, "tokenizer.json"}


def test_the_same_text_gives_the_same_fingerprint_and_another_another(folder, prepared, tmp_path):
    again = prepare([folder], tmp_path / "again", vocab_size=300)
    assert again.fingerprint == prepared.fingerprint
    bytes_ = prepare([folder], tmp_path / "bytes", vocab_size=259)
    given = prepare([folder], tmp_path / "given", tokenizer=prepared.tokenizer)
    assert given.fingerprint == prepared.fingerprint != bytes_.fingerprint
    assert bytes_.tokenizer.fingerprint == BYTES.fingerprint


def test_a_large_vocabulary_takes_four_bytes(folder, tmp_path, monkeypatch):
    assert (kind_of(2**16), kind_of(2**16 + 1)) == ("uint16", "int32")
    narrow = prepare([folder / "a.txt"], tmp_path / "narrow", BYTES)
    monkeypatch.setattr("transnormer_edu.prepare.kind_of", lambda size: "int32")
    made = prepare([folder / "a.txt"], tmp_path / "wide", BYTES)
    assert made.ids.dtype == torch.int32
    assert made.about["dtype"] == "int32"
    assert made.ids.tolist() == narrow.ids.tolist()
    assert made.fingerprint != narrow.fingerprint


def test_standard_input_is_read_once(tmp_path, monkeypatch):
    text = essay(0, 900)

    def given():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return ["-"]

    learned = prepare(given(), tmp_path / "learned", vocab_size=280)
    known = prepare(given(), tmp_path / "known", learned.tokenizer)
    assert known.fingerprint == learned.fingerprint
    assert learned.name == "standard input"
    assert learned.train_bytes + learned.about["held_out_bytes"] == len(text.encode())


def test_the_next_batch_is_under_way_while_one_is_used():
    begun = []

    def encode(batch):
        begun.append(batch)
        return batch

    pieces = [[Piece(n, "text", True, True, False)] for n in range(3)]
    used = []
    for piece in _ahead(encode, pieces):
        used.append(piece.number)
        deadline = time.monotonic() + 5
        while len(begun) < min(3, len(used) + 1) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(begun) == min(3, len(used) + 1)
    assert used == [0, 1, 2]


# ---------------------------------------------------------------- training from it


def test_a_mapped_row_gives_the_batches_of_one_in_memory(prepared):
    mapped = Batches(prepared.row(prepared.tokenizer), 13, 3, seed=5)
    memory = Batches(prepared.train.long(), 13, 3, seed=5)
    for i in (0, 7, memory.windows // 3, memory.windows):
        assert torch.equal(mapped[i].long(), memory[i])


def test_training_goes_on_to_the_same_losses(prepared, tmp_path):
    corpus = load_corpus(prepared.folder)
    assert isinstance(corpus, TokenFile)
    settings = TrainSettings(steps=6, batch_size=2, context=16, save_every=3, device="cpu")
    sizes = dict(vocab_size=corpus.tokenizer.vocab_size, layers=3)
    run = tmp_path / "run"

    def trainer(folder=None):
        model = linear(torch.float32, **sizes)
        return Trainer(model, corpus.tokenizer, corpus, settings, folder)

    trainer(run).run(progress=False, until=3)
    assert [step.loss for step in trainer()][3:] == [step.loss for step in resume(run)]
    about = json.loads((run / "settings.json").read_text())["corpus"]
    assert (about["sha256"], about["train_bytes"]) == (corpus.fingerprint, corpus.train_bytes)


def test_the_commands(folder, tmp_path):
    def call(*arguments, status=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == status, result.output
        return result.output

    out = tmp_path / "out"
    said = call("data", "prepare", folder, "--out", out, "--vocab-size", 290)
    assert "tokens (" in said and f"train --data {out}" in said
    small = ["--dim", 8, "--layers", 1, "--heads", 1, "--glu-dim", 8, "--batch-size", 2]
    small += ["--context", 16, "--device", "cpu", "--steps", 2, "--out", tmp_path / "run"]
    said = call("train", "--data", out, *small, "--vocab-size", 300, status=1)
    assert f"--vocab-size is settled by {out}" in said
    assert "held out: loss" in call("train", "--data", out, *small)
    assert "exists already" in call("data", "prepare", folder, "--out", out, status=1)


# ---------------------------------------------------------------- what can go wrong


KILLED = """
import os, signal, sys
from transnormer_edu import prepare
write = prepare._encode
def then_die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
prepare._encode = then_die
prepare.prepare([sys.argv[1]], sys.argv[2], vocab_size=259)
"""


def test_killed_in_the_middle(folder, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)])
    assert done.returncode != 0
    assert not out.exists()
    assert list(tmp_path.glob(f".out{PART}.*"))  # it had begun
    prepare([folder], out, BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_text_that_breaks_off_leaves_nothing(folder, tmp_path):
    broken = tmp_path / "broken.txt"
    broken.write_bytes(essay(0, 400).encode() + b"\xff\xfe")
    with pytest.raises(ValueError, match=r"broken\.txt is not UTF-8 text .0xff"):
        prepare([folder, broken], tmp_path / "out", BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.txt"]


@pytest.mark.bad_input
def test_bad_input(folder, tmp_path):
    out = tmp_path / "out"
    zeros, short = tmp_path / "zeros.txt", tmp_path / "short.txt"
    zeros.write_bytes(b"text\0text")
    short.write_text("x")
    (tmp_path / "nothing").mkdir()
    for sources, kind, sentence in (
        ([tmp_path / "none.txt"], FileNotFoundError, r"no file or folder .*none\.txt"),
        ([str(tmp_path / "*.none")], FileNotFoundError, r"no file that matches .*\*\.none"),
        ([tmp_path / "nothing"], ValueError, "nothing holds no text file"),
        ([], ValueError, "no text was named"),
        (str(folder), TypeError, "expected a list of names"),
        ([5], TypeError, "source is a int, expected a path"),
        ([zeros], ValueError, r"zeros\.txt holds zero bytes"),
        ([short], ValueError, "1 bytes are too short to be divided"),
    ):
        with pytest.raises(kind, match=sentence):
            prepare(sources, out, BYTES)
    with pytest.raises(FileExistsError, match="exists already"):
        prepare([folder], tmp_path, BYTES)
    with pytest.raises(ValueError, match="vocab_size is 12, expected at least 259"):
        prepare([folder], out, vocab_size=12)
    assert not out.exists()


@pytest.mark.bad_input
def test_a_damaged_file_is_named(folder, tmp_path):
    made = prepare([folder], tmp_path / "out", BYTES)
    with pytest.raises(ValueError, match="prepared with the tokenizer .*, the model has"):
        made.row(Tokenizer.train([essay(0)], 300))
    about = json.loads((made.folder / ABOUT).read_text())
    for change, sentence in (
        ({"format": "other"}, r"tokens\.json is damaged .format is 'other'"),
        ({"dtype": "int8"}, "dtype is 'int8', expected one of uint16, int32"),
        ({"train_tokens": -1}, "train_tokens is -1"),
        ({"name": None}, "name is a NoneType"),
        ({"held_out_tokens": about["held_out_tokens"] + 1}, r"tokens\.bin has .* bytes, expected"),
    ):
        (made.folder / ABOUT).write_text(json.dumps(about | change))
        with pytest.raises(ValueError, match=sentence):
            TokenFile(made.folder)
    (made.folder / ABOUT).write_text(json.dumps({"format": about["format"]}))
    with pytest.raises(ValueError, match="it lacks 'dtype'"):
        TokenFile(made.folder)
    (made.folder / ABOUT).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        TokenFile(made.folder / TOKENS)
    with pytest.raises(FileNotFoundError, match=r"no tokens\.json in .*elsewhere"):
        TokenFile(tmp_path / "elsewhere")
