"""Any text goes to ids and back; the same corpus gives the same tokenizer."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transnormer_edu.tokenizer import SPECIAL, Tokenizer, byte_pieces

TEXTS = ["the cat sat on the mat, the cat sat\n\n    indented é ∑ 猫 </s> <pad>"] * 3
BPE = Tokenizer.train(TEXTS, 300)
BYTES = Tokenizer.of_bytes()


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_its_bytes_are_counted(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.byte_counts[ids].sum()) == len(text.encode())
    assert all(2 < i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
def test_no_text_can_write_a_special_token(tokenizer):
    text = "<pad><s></s> </s>"
    assert min(tokenizer.encode(text)) > 2
    assert tokenizer.decode([1, *tokenizer.encode(text), 2, 0]) == text


def test_a_byte_is_its_number_plus_three_in_both():
    assert BYTES.encode("Aé") == [3 + 65, 3 + 0xC3, 3 + 0xA9]
    assert BPE.encode("Q") == [3 + ord("Q")]  # never seen with a neighbour: no merge
    assert len(set(byte_pieces())) == 256
    assert (BYTES.vocab_size, BYTES.pad_id, BYTES.bos_id, BYTES.eos_id) == (259, 0, 1, 2)


def test_bpe_merges_what_is_frequent():
    assert len(BPE.encode("the cat sat")) < len(BYTES.encode("the cat sat")) / 2
    assert BPE.vocab_size <= 300


def test_every_piece_that_was_learned_can_be_written():
    for i in range(259, BPE.vocab_size):
        text = BPE.decode([i])
        if "\N{REPLACEMENT CHARACTER}" not in text:  # a part of é is no text
            assert BPE.encode(text) == [i]


def test_documents_stand_between_start_and_end():
    row = BYTES.encode_documents(["A", "", "BC"])
    assert row.tolist() == [1, 68, 2, 1, 2, 1, 69, 70, 2]
    assert row.dtype == torch.int64


def test_a_saved_tokenizer_is_the_same(tmp_path):
    BPE.save(tmp_path / "new" / "folder")
    again = Tokenizer.load(tmp_path / "new" / "folder")
    assert again.fingerprint == BPE.fingerprint != BYTES.fingerprint
    assert again.encode(TEXTS[0]) == BPE.encode(TEXTS[0])
    assert again.decode(again.encode(TEXTS[0])) == TEXTS[0]


def test_the_same_texts_give_the_same_tokenizer_in_another_process():
    program = (
        "import sys; from transnormer_edu.tokenizer import Tokenizer;"
        "print(Tokenizer.train(eval(sys.argv[1]), 300).fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, repr(TEXTS)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == BPE.fingerprint


def test_other_programs_can_read_the_file(tmp_path):
    from tokenizers import Tokenizer as Pipeline

    BPE.save(tmp_path)
    theirs = Pipeline.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("the cat").ids == BPE.encode("the cat")


@pytest.mark.bad_input
def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="vocab_size is 258, expected at least 259"):
        Tokenizer.train(TEXTS, 258)
    for wrong in (-1, 259):
        with pytest.raises(ValueError, match=f"got the id {wrong}, expected 0 to 258"):
            BYTES.decode([65, wrong])
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json in"):
        Tokenizer.load(tmp_path)
    vocab = {piece: i for i, piece in enumerate(SPECIAL + byte_pieces())}
    for damaged in (
        *("", "[]", "{}", json.dumps({"model": {"vocab": {"a": 0}, "merges": []}})),
        json.dumps({"model": {"vocab": list(vocab), "merges": []}}),
        json.dumps({"model": {"vocab": vocab, "merges": [["zz", "a"]]}}),
        json.dumps({"model": {"vocab": vocab | {"the": 5000}, "merges": []}}),
    ):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(ValueError, match="is damaged or of another kind"):
            Tokenizer.load(tmp_path)


@pytest.mark.bad_input
def test_what_is_no_text_and_no_ids_is_named():
    tokenizer = Tokenizer.of_bytes()
    with pytest.raises(TypeError, match="text is a bytes, expected a str"):
        tokenizer.encode(b"text")
    with pytest.raises(ValueError, match="letter 3 of the text is no Unicode"):
        tokenizer.encode("été\udcff")
    row = torch.tensor(tokenizer.encode("été"))
    assert tokenizer.decode(row) == tokenizer.decode(list(row)) == "été"
    with pytest.raises(TypeError, match="ids is a int, expected a Iterable"):
        tokenizer.decode(5)
    for ids in ("ab", [1.5], torch.tensor([[3, 4]])):
        with pytest.raises(ValueError, match="decode got the id .*, expected 0 to 258"):
            tokenizer.decode(ids)
    with pytest.raises(TypeError, match=r"texts is a str, expected several texts: \[text\]"):
        Tokenizer.train("one text", 300)
    with pytest.raises(ValueError, match="vocab_size is 300.5, expected at least 259"):
        Tokenizer.train(["one text"], 300.5)
