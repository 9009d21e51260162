"""Where the text comes from, how it is divided, and that nothing held out was seen before."""

import errno
import os
import re
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import pytest

from transnormer_edu import data, library_text
from transnormer_edu.data import Corpus, Document, load_corpus, zlib_bits_per_byte

WORDS = [f"word{i}" for i in range(9000)]


def essay(start, words=40):
    return " ".join(WORDS[start : start + words]) + "."


@pytest.fixture(scope="module")
def english():
    return load_corpus("english")


def text_of(documents):
    return "\n\n".join(document.text for document in documents)


def eight_word_runs(text):
    """Written apart from the package's own function, so that both would have to be wrong."""
    for paragraph in re.split(r"\n\s*\n", text):
        words = re.findall(r"\w+", paragraph.lower())
        if len(words) >= 8:
            yield [tuple(words[i : i + 8]) for i in range(len(words) - 7)]


def test_english_is_large_and_mostly_to_train_on(english):
    train, held_out = len(text_of(english.train)), len(english.held_out_text)
    assert train > 1_000_000
    assert 0.05 < held_out / (train + held_out) < 0.2
    assert "topic" in english.train[0].name
    assert len(english.describe()) < 250


def test_no_module_is_on_both_sides(english):
    def families(documents):
        return {d.name.split(".")[0].lstrip("_").removeprefix("py") for d in documents}

    assert len(families(english.held_out)) > 20
    assert not families(english.train) & families(english.held_out)


def test_nothing_held_out_is_a_copy_of_something_trained_on(english):
    seen = {run for runs in eight_word_runs(text_of(english.train)) for run in runs}
    copies = [
        runs
        for runs in eight_word_runs(english.held_out_text)
        if sum(run in seen for run in runs) > len(runs) / 2
    ]
    assert copies == []


def test_no_paragraph_stands_twice(english):
    paragraphs = re.split(r"\n\s*\n", text_of([*english.train, *english.held_out]))
    plain = [" ".join(re.findall(r"\w+", p.lower())) for p in paragraphs]
    assert len(plain) == len(set(plain))


def test_planted_copies_are_dropped_and_the_rest_stays():
    names = [f"module{i}" for i in range(200)]
    held = [name for name in names if data.is_held_out(data._family(name))]
    free = [name for name in names if name not in held]
    assert 5 < len(held) < 50
    nearly = essay(0).replace("word20 ", "other ")  # 8 of its 33 windows are new
    documents = [
        Document(free[0], essay(0) + "\n\n" + essay(100)),
        Document(free[1] + ".inner", essay(100).upper() + "\n\n" + essay(200)),
        Document(held[0], nearly + "\n\n" + essay(300) + "\n \n" + essay(200)),
        Document(held[1], essay(300)),
    ]
    corpus = data._split_by_module("planted", documents)
    assert corpus.train == (documents[0], Document(free[1] + ".inner", essay(200)))
    assert corpus.held_out == (Document(held[0], essay(300)),)


def test_the_side_depends_on_the_top_name_alone():
    assert {data._family(n) for n in ("email", "email.mime.text", "_email", "_pyemail")} == {
        "email"
    }


def test_the_same_corpus_in_another_process_and_no_module_is_imported(english):
    program = (
        "import sys; from transnormer_edu.data import load_corpus;"
        "print(load_corpus().fingerprint);"
        "assert not {'antigravity', 'this', 'turtle', 'idlelib'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == english.fingerprint  # nothing else printed either


def test_the_fingerprint_sees_text_side_and_name():
    a, b, c = Document("a", "xy"), Document("b", "z"), Document("a", "x")
    different = [
        Corpus("n", (a,), (b,)),
        Corpus("n", (b,), (a,)),
        Corpus("n", (a, b), ()),
        Corpus("n", (c,), (b,)),
        Corpus("n", (Document("ax", "y"),), (b,)),
    ]
    assert len({corpus.fingerprint for corpus in different}) == len(different)
    assert Corpus("other", (a,), (b,)).fingerprint == different[0].fingerprint


def test_the_library_source_has_code_and_no_tests():
    corpus = load_corpus("source")
    assert "def " in corpus.held_out_text
    assert len(text_of(corpus.train)) > 3_000_000
    names = [document.name.split(".") for document in [*corpus.train, *corpus.held_out]]
    assert not [n for n in names if {"test", "tests", "site-packages", "pydoc_data"} & set(n)]


def test_a_file_is_cut_in_contiguous_pieces(tmp_path):
    text = "\n\n".join(essay(i * 60, 20 + i % 40) for i in range(140))
    path = tmp_path / "book.txt"
    path.write_text(text)
    train, held_out = [], []
    data._cut(Document("book.txt", text), train, held_out)
    span = re.compile(r"\[(\d+):(\d+)\]$")
    pieces = sorted((*map(int, span.search(d.name).groups()), d.text) for d in train + held_out)
    assert "".join(piece for *_, piece in pieces) == text
    assert all(text[left:right] == piece for left, right, piece in pieces)
    assert all(piece.endswith("\n\n") for *_, piece in pieces[:-1])  # cut between paragraphs
    share = sum(len(d.text) for d in held_out) / len(text)
    assert 0.05 < share < 0.15
    corpus = load_corpus(path)
    assert corpus.train == tuple(train)  # the user's training text is not touched
    assert (corpus.name, corpus.source) == ("book.txt", str(path))


def test_held_out_paragraphs_of_a_file_that_were_trained_on_are_dropped(tmp_path):
    fresh = [essay(i * 9, 9) for i in range(100)]
    text = "\n\n".join([*fresh[:90], fresh[0], fresh[5], *fresh[90:]])
    path = tmp_path / "book.txt"
    path.write_text(text)
    corpus = load_corpus(path)
    assert fresh[0] in text_of(corpus.train)
    assert fresh[0] not in corpus.held_out_text
    assert fresh[99] in corpus.held_out_text


def test_a_text_that_only_repeats_itself_is_used_with_a_warning(tmp_path):
    path = tmp_path / "drum.txt"
    path.write_text("the same eight words again and again and again\n\n" * 200)
    with pytest.warns(UserWarning, match=r"Every held-out paragraph of drum\.txt also stands"):
        corpus = load_corpus(path)
    assert corpus.held_out
    assert len(corpus.notes) == 1


def test_no_blank_lines_and_windows_line_ends(tmp_path):
    path = tmp_path / "one.txt"
    path.write_bytes(b"\xef\xbb\xbf" + " ".join(WORDS[:1000]).encode() + b"\r\nlast line\r\n")
    corpus = load_corpus(path)
    everything = text_of([*corpus.train, *corpus.held_out])
    assert "\r" not in everything
    assert everything.startswith("word0 ")
    assert not set(text_of(corpus.train).split()) & set(corpus.held_out_text.split())


def test_a_folder_of_many_files_is_split_by_file(tmp_path):
    for i in range(60):
        (tmp_path / f"{i}.txt").write_text(essay(i * 15, 15))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / ".hidden").write_text("secret")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "message.txt").write_text("secret")
    corpus = load_corpus(tmp_path)
    names = [{d.name for d in side} for side in (corpus.train, corpus.held_out)]
    assert names[0] | names[1] == {f"{i}.txt" for i in range(60)}
    assert not names[0] & names[1]
    assert names[1]


def test_a_folder_of_few_files_is_split_inside_them(tmp_path):
    for name, start in (("a.txt", 0), ("b.txt", 500)):
        (tmp_path / name).write_text("\n".join(essay(start + i * 20, 20) for i in range(25)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corpus = load_corpus(tmp_path)
    assert {d.name[:5] for d in corpus.train} == {"a.txt", "b.txt"}


def test_zlib_yardstick():
    text = "état " * 100
    assert zlib_bits_per_byte(text) == 8 * len(zlib.compress(text.encode(), 9)) / 600


@pytest.mark.bad_input
def test_bad_input(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*x\.txt: give"):
        load_corpus(path)
    for content, sentence in (
        (b"", r"x\.txt is empty"),
        (b" \n\n", r"x\.txt is empty"),
        (b"a\0b", "holds zero bytes, so it is binary or UTF-16"),
        ("é".encode("latin-1"), "is not UTF-8 text .byte 0 is 0xe9.: save it as UTF-8"),
        (b"ab" * 90, "180 characters is too short to be divided"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            load_corpus(path)
    path.unlink()
    with pytest.raises(ValueError, match="holds no text file"):
        load_corpus(tmp_path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        data.read_text_file(tmp_path)
    with pytest.raises(ValueError, match="got an empty text"):
        zlib_bits_per_byte("")
    monkeypatch.setattr(library_text.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(FileNotFoundError, match="library's source was expected"):
        load_corpus("source")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_an_unreadable_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("text")
    path.chmod(0)
    with pytest.raises(PermissionError, match="may not be read: change its permissions"):
        load_corpus(path)


@pytest.mark.bad_input
@pytest.mark.parametrize("source", [None, 5, ""])
def test_what_is_no_source_is_named(source):
    with pytest.raises(
        ValueError, match=f"data is {source!r}, expected english, source, or a file"
    ):
        load_corpus(source)


@pytest.mark.parametrize(
    "number, error, sentence",
    [
        (errno.EACCES, PermissionError, "x.txt may not be read: change its permissions"),
        (
            errno.EIO,
            OSError,
            "x.txt cannot be read .*error.*, expected a text file",
        ),
    ],
)
def test_a_file_that_the_system_does_not_read(tmp_path, monkeypatch, number, error, sentence):
    """As above, also for root, who may read all."""
    (tmp_path / "x.txt").write_text("text")

    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(error, match=sentence):
        load_corpus(tmp_path / "x.txt")
