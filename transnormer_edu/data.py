"""Text that every machine has, and how it is divided.

Nothing is downloaded and nobody's text is committed: a corpus is read from the running Python or
from the reader's own file.

    load_corpus("english")    pydoc's topics and the standard library's docstrings, about 2 MB
    load_corpus("source")     the standard library's source, about 10 MB
    load_corpus("book.txt")   your file, or a folder of text files
    load_corpus("prepared")   what `transnormer-edu data prepare` wrote, of any size: a `TokenFile`

Two promises, without which a held-out loss means nothing:

1. *What is held out was never trained on.* The split is by module: all of `email.*` is on one side.
   The side depends on the name alone, so it is the same on every machine and in every Python.
2. *Nothing held out is a copy of something trained on.* A held-out paragraph is dropped when more
   than half of its windows of 8 words occur in the training part.

(A `TokenFile` keeps the first for pieces of a file, and nobody has looked for copies in it.)

`corpus.fingerprint` (sha256 over the texts and their division) says which text it was: it is
logged and stored with every weight file, since another Python version has other docstrings.
"""

import hashlib
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Int64
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.library_text import docstrings, pydoc_topics, standard_library
from transnormer_edu.text_pieces import is_hidden
from transnormer_edu.token_file import TokenFile, is_prepared
from transnormer_edu.tokenizer import Tokenizer

HELD_OUT_SHARE = 0.1
WINDOW = 8  # words; two texts that share most of their 8-word windows are copies


class Document(NamedTuple):
    """A text that is read from start to end: a topic, a module's docstrings, a piece of a file."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents to learn from and documents to be examined on.

    name        "english", "source" or the name of the user's file
    train       documents of the training part
    held_out    documents of the held-out part; no module is in both
    source      what `load_corpus` was given; a path is made absolute, so that a run can go on
    notes       sentences a reader of the results should know (for example dropped copies)
    """

    name: str
    train: tuple[Document, ...]
    held_out: tuple[Document, ...]
    source: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def train_bytes(self) -> int:
        """UTF-8 bytes of the training part."""
        return sum(len(document.text.encode()) for document in self.train)

    def row(self, tokenizer: Tokenizer) -> Int64[Tensor, "tokens"]:
        """The training part as one row of ids."""
        return tokenizer.encode_documents(document.text for document in self.train)

    @cached_property
    def held_out_text(self) -> str:
        """The held-out documents as one text: what `evaluate` and `zlib` are compared on."""
        return "\n\n".join(document.text for document in self.held_out)

    @cached_property
    def fingerprint(self) -> str:
        """sha256, in hex, over every document's side, name and text."""
        digest = hashlib.sha256()
        for side, documents in (("train", self.train), ("held out", self.held_out)):
            for part in (side, *(part for document in documents for part in document)):
                data = part.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "little") + data)  # lengths: no two can blur
        return digest.hexdigest()

    def describe(self) -> str:
        """One line for the log."""
        train, held_out = (
            f"{sum(len(d.text.encode()) for d in part):,} bytes in {len(part)} documents"
            for part in (self.train, self.held_out)
        )
        return f"{self.name}: {train} to train on, {held_out} held out, sha256 {self.fingerprint}"


def load_corpus(source: str | Path = "english") -> Corpus | TokenFile:
    """The corpus "english", "source", or that of a file or folder; a prepared text as it is.

    Errors: FileNotFoundError for a path that is not there; ValueError for a file that is not UTF-8
    text, is empty or is too short to be divided; PermissionError for one that may not be read.
    """
    if source == "english":
        texts = [*pydoc_topics(), *standard_library(docstrings)]
        return _split_by_module("english", map(Document._make, texts))
    if source == "source":
        texts = standard_library(lambda source: source)
        return _split_by_module("source", map(Document._make, texts))
    if not isinstance(source, str | Path) or source == "":
        raise ValueError(f"data is {source!r}, expected english, source, or a file or folder.")
    path = Path(source).expanduser().absolute()
    if is_prepared(path):
        return TokenFile(path)
    return replace(_read_user_text(path), source=str(path))


def zlib_bits_per_byte(text: str) -> float:
    """Bits per UTF-8 byte that `zlib -9` needs for `text`: a yardstick that has learned nothing.

    8 · (bytes compressed) / (bytes of text). Errors: ValueError for an empty text.
    """
    check.kind("text", text, str)
    data = text.encode("utf-8")
    if not data:
        raise ValueError("zlib_bits_per_byte got an empty text; give it at least one character.")
    return 8 * len(zlib.compress(data, 9)) / len(data)


# ---------------------------------------------------------------- the split, and no copies


def _family(name: str) -> str:
    """`email.mime.text` -> `email`; `_pydecimal` -> `decimal`: what must stay on one side."""
    return re.sub(r"^_(py)?", "", name.split(".")[0])


def is_held_out(family: str) -> bool:
    """A coin with HELD_OUT_SHARE for heads that always falls alike for the same name."""
    # The 2 was chosen before anything was trained: texts of many kinds, a tenth of all in size.
    digest = hashlib.sha256(f"held out 2: {family}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def _split_by_module(name: str, documents: Iterable[Document]) -> Corpus:
    train, held_out = [], []
    for document in documents:
        (held_out if is_held_out(_family(document.name)) else train).append(document)
    seen: set[bytes] = set()
    train = list(_without_copies(train, seen))
    return Corpus(name, tuple(train), tuple(_without_copies(held_out, seen)), source=name)


def _windows(paragraph: str) -> set[bytes]:
    """A hash for each run of WINDOW words; a shorter paragraph is one run."""
    words = re.findall(r"\w+", paragraph.lower())
    runs = (words[i : i + WINDOW] for i in range(max(1, len(words) - WINDOW + 1)))
    return {hashlib.blake2b(" ".join(run).encode(), digest_size=8).digest() for run in runs}


def _without_copies(documents: Iterable[Document], seen: set[bytes]) -> Iterator[Document]:
    """The documents without paragraphs that are mostly in `seen`; what stays is added to `seen`."""
    for document in documents:
        kept = []
        for paragraph in re.split(r"\n\s*\n", document.text):
            windows = _windows(paragraph)
            if paragraph.strip() and 2 * len(windows & seen) <= len(windows):
                kept.append(paragraph.rstrip())
                seen |= windows
        if kept:
            yield Document(document.name, "\n\n".join(kept))


# ---------------------------------------------------------------- the reader's own text


def read_text_file(path: str | Path) -> str:
    """A UTF-8 text file as a string; Windows line ends become plain ones.

    Errors: FileNotFoundError, IsADirectoryError, PermissionError, or OSError for what else keeps
    the system from reading it; ValueError for a binary, empty or differently encoded file.
    """
    path = check.path("path", path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file {path}: give the path of a text file, or the word english or source."
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a text file: name a file in it.")
    text = _decoded(path, _bytes_of(path))
    if not text.strip():
        raise ValueError(f"{path} is empty, expected text: choose a file with some in it.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read: change its permissions.") from error
    except OSError as error:
        raise OSError(
            f"{path} cannot be read ({error.strerror}), expected a text file: choose another."
        ) from error


def _decoded(path: Path, data: bytes) -> str:
    """What stands in UTF-8, without the mark that some editors put in front."""
    if b"\0" in data:
        raise ValueError(
            f"{path} holds zero bytes, so it is binary or UTF-16, expected text: save it as UTF-8."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}): "
            f"save it as UTF-8."
        ) from error


def _read_user_text(path: Path) -> Corpus:
    """A file in contiguous pieces; a folder of 20 or more files file by file."""
    if path.is_dir():
        files = [f for f in sorted(path.rglob("*")) if f.is_file() and not is_hidden(f, path)]
        documents = []
        for file in files:
            try:
                documents.append(Document(file.relative_to(path).as_posix(), read_text_file(file)))
            except ValueError:  # pictures and empty files may lie among the texts
                continue
        if not documents:
            raise ValueError(f"{path} holds no text file, expected at least one in UTF-8: add one.")
    else:
        documents = [Document(path.name, read_text_file(path))]
    if len(documents) >= 20:
        held_out = [document for document in documents if is_held_out(document.name)]
        train = [document for document in documents if not is_held_out(document.name)]
    if len(documents) < 20 or not held_out or not train:
        train, held_out = [], []
        for document in documents:
            _cut(document, train, held_out)
    return _drop_held_out_copies(path.name, train, held_out)


def _cut(document: Document, train: list[Document], held_out: list[Document]) -> None:
    """Cut into equal pieces at paragraphs, hold out every tenth, join the nine between."""
    text, pieces = document.text, min(100, max(10, len(document.text) // 20_000 * 10))
    borders = sorted({0, len(text), *(_border(text, i, pieces) for i in range(1, pieces))})
    start = 0
    for number, (left, right) in enumerate(pairwise(borders), 1):
        is_last = right == len(text)
        if number % 10 == 0 or (is_last and not held_out):
            if left > start:
                train.append(Document(f"{document.name}[{start}:{left}]", text[start:left]))
            held_out.append(Document(f"{document.name}[{left}:{right}]", text[left:right]))
            start = right
        elif is_last:
            train.append(Document(f"{document.name}[{start}:{right}]", text[start:right]))


def _border(text: str, i: int, pieces: int) -> int:
    """An end of a paragraph, else of a line, else of a word, in the second half of piece i."""
    end = len(text) * i // pieces
    for mark in ("\n\n", "\n", " "):
        found = text.find(mark, end - len(text) // pieces // 2, end)
        if found >= 0:
            return found + len(mark)
    return end


def _drop_held_out_copies(name: str, train: list[Document], held_out: list[Document]) -> Corpus:
    """The user's training text stays as it is; only the examination loses what was seen before."""
    size = sum(len(document.text) for document in (*train, *held_out))
    if size < 200 or not train or not held_out:
        raise ValueError(
            f"{name} with {size} characters is too short to be divided into a training and a "
            f"held-out part: give a longer text, at least some hundred words."
        )
    seen: set[bytes] = set()
    for document in train:
        for paragraph in re.split(r"\n\s*\n", document.text):
            seen |= _windows(paragraph)
    fresh = list(_without_copies(held_out, seen))
    if fresh:
        return Corpus(name, tuple(train), tuple(fresh))
    note = (
        f"Every held-out paragraph of {name} also stands in its training part: the held-out loss "
        f"says how well the text was learned by heart, not how well it would do on another."
    )
    warnings.warn(note, stacklevel=4)
    return Corpus(name, tuple(train), tuple(held_out), notes=(note,))
