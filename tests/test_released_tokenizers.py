"""Sentencepiece and tiktoken behind the one tokenizer interface, on small models made here."""

import base64
import io
import json
import warnings

import pytest
import torch

from tests.models import linear
from transnormer_edu.data import load_corpus
from transnormer_edu.evaluate import evaluate
from transnormer_edu.released_tokenizers import MODEL, SentencePieceTokenizer, load_tokenizer
from transnormer_edu.run_folder import export
from transnormer_edu.settings import TrainSettings
from transnormer_edu.tokenizer import Tokenizer
from transnormer_edu.train import Trainer, load_trained
from transnormer_edu.write import write_text

TEXT = "the cat sat on the mat,  indented é ∑ 猫 ☃ </s> <|endoftext|>\n\n it is"


@pytest.fixture
def sentencepiece_folder(tmp_path):
    library = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT.replace("☃", "")] * 20), model_writer=file, vocab_size=320,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, add_dummy_prefix=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / MODEL).write_bytes(file.getvalue())
    return tmp_path


@pytest.fixture
def tiktoken_folder(tmp_path):
    pytest.importorskip("tiktoken")
    pieces = [bytes([i]) for i in range(256)] + [b"th", b"the", b" c", b" cat"]
    lines = [base64.b64encode(p) + b" " + str(i).encode() + b"\n" for i, p in enumerate(pieces)]
    (tmp_path / "small.tiktoken").write_bytes(b"".join(lines))
    ids = dict(vocab_size=100280, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    (tmp_path / "config.json").write_text(json.dumps(ids))
    return tmp_path


@pytest.mark.parametrize("kind", ["sentencepiece_folder", "tiktoken_folder"])
def test_the_interface_is_the_same(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    tokenizer = load_tokenizer(folder)
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode(TEXT)
    assert len(ids) < len(TEXT.encode()) and tokenizer.decode(ids) == TEXT
    assert int(tokenizer.byte_counts[ids].sum()) == len(TEXT.encode())
    special = [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id]
    assert not set(special) & set(ids) and tokenizer.decode([*special, *ids]) == TEXT
    row = tokenizer.encode_documents(["the", "cat"]).tolist()
    assert [i for i in row if i in special] == [tokenizer.bos_id, tokenizer.eos_id] * 2
    tokenizer.save(tmp_path / "copy")
    copy = load_tokenizer(tmp_path / "copy")
    assert copy.fingerprint == tokenizer.fingerprint and copy.vocab_size == tokenizer.vocab_size
    assert [copy.bos_id, copy.eos_id, copy.pad_id] == special
    (folder / "revision").mkdir()  # the tokenizer of several revisions lies beside them
    assert load_tokenizer(folder / "revision").encode(TEXT) == ids


def test_released_ids(sentencepiece_folder):
    tokenizer = load_tokenizer(sentencepiece_folder)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    model = linear(vocab_size=tokenizer.vocab_size)
    assert "".join(write_text(model, tokenizer, "the cat", 5, stop_tokens=()))
    assert "".join(write_text(model, tokenizer, "", 5, stop_tokens=())) is not None
    assert evaluate(model, tokenizer, TEXT, context=8).bytes == len(TEXT.encode())


@pytest.mark.parametrize("prompt", ["the cat", ""])
def test_written_text_keeps_its_spaces(prompt, request, monkeypatch):
    """A sentencepiece model trained with the library's defaults drops a text's first space."""
    library, file = pytest.importorskip("sentencepiece"), io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT.replace("☃", "")] * 20), model_writer=file, vocab_size=320,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    whole = "the cat sat on the mat ☃ the cat"
    for tokenizer in (SentencePieceTokenizer(file.getvalue()), Tokenizer.of_bytes()):
        ids = tokenizer.encode(whole)
        new = ids[len(tokenizer.encode(prompt)) :]
        rows = iter([torch.tensor([i]) for i in new])
        monkeypatch.setattr("transnormer_edu.write.stream", lambda *_, rows=rows, **__: rows)
        assert prompt + "".join(write_text(linear(), tokenizer, prompt)) == whole


def test_a_run_with_a_released_tokenizer_can_be_given_away(sentencepiece_folder, tmp_path):
    tokenizer = load_tokenizer(sentencepiece_folder)
    (tmp_path / "text.txt").write_text("\n\n".join([TEXT] * 9))
    settings = TrainSettings(steps=1, batch_size=2, context=8, eval_windows=2, device="cpu")
    with warnings.catch_warnings(action="ignore"):  # the text repeats itself
        corpus = load_corpus(tmp_path / "text.txt")
    model = linear(torch.float32, vocab_size=tokenizer.vocab_size)
    Trainer(model, tokenizer, corpus, settings, tmp_path / "run").run(progress=False)
    export(tmp_path / "run", tmp_path / "small")
    assert load_trained(tmp_path / "small")[1].fingerprint == tokenizer.fingerprint


def test_prompts_of_released_models_have_no_start(sentencepiece_folder, monkeypatch):
    seen = []

    def stream(model, ids, *_, stop_tokens):
        assert stop_tokens == 2
        seen.append(ids)
        return iter(())

    monkeypatch.setattr("transnormer_edu.write.stream", stream)
    for tokenizer in (load_tokenizer(sentencepiece_folder), Tokenizer.of_bytes()):
        for prompt in ("the", ""):
            list(write_text(linear(), tokenizer, prompt))
    ours, empty, bytes_ours, bytes_empty = seen
    assert ours[0] != 1 and empty == [1] and bytes_ours[0] == 1 and bytes_empty == [1]


def test_ids_of_tiktoken(tiktoken_folder):
    tokenizer = load_tokenizer(tiktoken_folder)
    assert tokenizer.encode("the cat") == [257, 259]
    assert tokenizer.decode([0, 1, 2]) == "\0\1\2"  # ordinary pieces, whatever the config says
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (100257,) * 3
    assert tokenizer.vocab_size == 100280 and tokenizer.decode([100279]) == ""
    with pytest.raises(ValueError, match="got the id 100280, expected 0 to 100279"):
        tokenizer.decode([100280])


@pytest.mark.parametrize("size, end", [(300, 260), (260, 259)])
def test_ids_of_a_small_tiktoken_vocabulary_are_all_inside(size, end, tiktoken_folder):
    ids = dict(vocab_size=size, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    (tiktoken_folder / "config.json").write_text(json.dumps(ids))
    tokenizer = load_tokenizer(tiktoken_folder)
    assert tokenizer.vocab_size == size and tokenizer.encode("the cat") == [257, 259]
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (end,) * 3
    assert (
        "".join(write_text(linear(vocab_size=size), tokenizer, "", 5, stop_tokens=())) is not None
    )


def test_damaged_and_missing_ones_are_named(sentencepiece_folder, tiktoken_folder):
    (tiktoken_folder / "small.tiktoken").write_text("no base 64 7\n")
    with pytest.raises(ValueError, match=r"small\.tiktoken cannot be read"):
        load_tokenizer(tiktoken_folder)
    (tiktoken_folder / "small.tiktoken").write_text("YQ== 0\nYg== 2\n")
    with pytest.raises(ValueError, match=r"small\.tiktoken cannot be read .*ids are not 0, 1"):
        load_tokenizer(tiktoken_folder)
    (tiktoken_folder / "small.tiktoken").write_text("YQ== 0\nYQ== 1\n")
    with pytest.raises(ValueError, match=r"small\.tiktoken cannot be read .*ids are not 0, 1"):
        load_tokenizer(tiktoken_folder)
    (tiktoken_folder / "small.tiktoken").write_text("YQ== 0\nYg== 1\n")
    assert load_tokenizer(tiktoken_folder).encode("abba") == [0, 1, 1, 0]
    with pytest.raises(ValueError, match=r"small\.tiktoken .*\(no piece for the byte 99\)"):
        load_tokenizer(tiktoken_folder).encode("abc")
    (tiktoken_folder / "small.tiktoken").unlink()
    for damage in (b"nothing of the kind", b""):
        (sentencepiece_folder / MODEL).write_bytes(damage)
        with pytest.raises(ValueError, match=r"tokenizer\.model cannot be read"):
            load_tokenizer(sentencepiece_folder)


def test_no_tokenizer_and_no_library(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="there is no tokenizer in .* expected tokenizer.j"):
        load_tokenizer(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / MODEL).write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ImportError, match="needs sentencepiece: pip install sentencepiece"):
        load_tokenizer(tmp_path / "a" / "b")
