"""From text of any size to a `TokenFile`: read, cut, tokenised on all cores, written whole.

    prepare(["books/", "more/**/*.txt", "-"], "prepared")

The text streams through: a few megabytes of it are in memory, whatever its size (with standard
input also what the tokenizer is learned from). While one batch of pieces is tokenised, by the
tokenizer's library on all cores, the one before is written and the next one is read.

Held out is one piece in ten, and of texts above 80 MB fewer, evenly spread, so that it is 8 MB.
Unlike data.py nothing looks for copies here: of a text that says everything twice, what is held out
was seen in training.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from transnormer_edu import check
from transnormer_edu.atomic import sweep, whole_folder
from transnormer_edu.text_pieces import (
    MOST_HELD_OUT,
    PIECE,
    STDIN,
    Piece,
    text_files,
    text_pieces,
    total_bytes,
)
from transnormer_edu.token_file import ABOUT, FORMAT, TOKENS, TokenFile, kind_of
from transnormer_edu.tokenizer import Tokenizer

LEARN_FROM = 64_000_000  # characters; more of them change a vocabulary hardly at all
BATCH = 256  # pieces: 4 MB, and enough for many cores
HELD_OUT_EVERY = 10  # pieces, at least
NO_COPIES = "Copies were not looked for: what is held out may stand in the training part too."


def prepare(
    sources: Iterable[str | Path],
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    vocab_size: int = 2048,
    progress: bool = False,
) -> TokenFile:
    """Tokenise all text of `sources` (see text_pieces.py) into `folder`, whole or not at all.

    tokenizer     None: byte-pair encoding of `vocab_size` pieces is learned from the text; 259:
                  single bytes
    progress      show a bar

    Errors: FileExistsError for a folder that is there already; FileNotFoundError for a source that
    is not; ValueError for what is no UTF-8 text, or too little of it.
    """
    folder = check.path("folder", folder).expanduser()
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: give another name, or remove it.")
    files = text_files(sources)
    total = total_bytes(files)
    read = partial(text_pieces, files, *_sizes(total))
    sweep(folder)
    with _Bar(total, progress) as bar:
        pieces = None
        if tokenizer is None:
            tokenizer, pieces = _learn(read, total, vocab_size, bar)
        pieces = bar.count("tokens", pieces or read())
        with whole_folder(folder, last=TOKENS, seal=ABOUT) as part:
            about = {"format": FORMAT, "name": _name(files)} | _write(part, tokenizer, pieces)
            tokenizer.save(part)
            (part / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return TokenFile(folder)


def _sizes(total: int | None) -> tuple[int, int]:
    """Characters of a piece, and how many pieces there are to each that is held out."""
    if total is None:
        return PIECE, HELD_OUT_EVERY
    held_out = MOST_HELD_OUT * PIECE
    return min(PIECE, max(1, total // 20)), max(HELD_OUT_EVERY, -(-total // held_out))


def _learn(read: Callable, total: int | None, vocab_size: int, bar: "_Bar"):
    """A tokenizer from the text, evenly spread, and the pieces if they can be read only once.

    Of standard input the beginning must do.
    """
    if vocab_size == Tokenizer.of_bytes().vocab_size:
        return Tokenizer.of_bytes(), None
    if total is None:
        pieces = read()
        beginning = list(islice(pieces, LEARN_FROM // PIECE))
        texts = [piece.text for piece in beginning if not piece.held_out]
        return Tokenizer.train(texts, vocab_size), chain(beginning, pieces)
    stride = -(-total // LEARN_FROM)
    sample = (
        piece.text
        for piece in bar.count("vocabulary", read())
        if piece.number % stride == 0 and not piece.held_out
    )
    return Tokenizer.train(sample, vocab_size), None


@dataclass
class Count:
    """How large a part of the text is."""

    tokens: int = 0
    bytes: int = 0

    def add(self, piece: Piece, ids: np.ndarray) -> None:
        self.tokens += len(ids)
        self.bytes += len(piece.text.encode())


def _write(part: Path, tokenizer: Tokenizer, pieces: Iterable[Piece]) -> dict:
    """tokens.bin, the training part first; what there is to say about it."""
    kind = kind_of(tokenizer.vocab_size)
    encode = partial(_encode, tokenizer, np.dtype(kind).newbyteorder("<"))
    train, held_out, digest = Count(), Count(), hashlib.sha256()
    later = []  # the held-out part stands at the end, and is small
    with open(part / TOKENS, "wb") as file:
        for piece, ids in _ahead(encode, _batches(pieces)):
            if piece.held_out:
                held_out.add(piece, ids)
                later.append(ids)
            else:
                train.add(piece, ids)
                file.write(ids)
                digest.update(ids)
        for ids in later:
            file.write(ids)
            digest.update(ids)
    if not (train.tokens and held_out.tokens):
        raise ValueError(
            f"{train.bytes + held_out.bytes} bytes are too short to be divided into a training and "
            "a held-out part: give a longer text (on standard input at least 20 KB)."
        )
    digest.update(f"{kind} {train.tokens} {tokenizer.fingerprint}".encode())
    return {
        "sha256": digest.hexdigest(),
        "dtype": kind,
        "train_tokens": train.tokens,
        "held_out_tokens": held_out.tokens,
        "train_bytes": train.bytes,
        "held_out_bytes": held_out.bytes,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.fingerprint,
        "notes": [NO_COPIES],
    }


def _encode(tokenizer: Tokenizer, kind: np.dtype, pieces: list[Piece]) -> list:
    """Each piece with its ids, the marks <s> and </s> where a document begins and ends."""
    start, end = [tokenizer.bos_id], [tokenizer.eos_id]
    rows = tokenizer.encode_many(piece.text for piece in pieces)
    return [
        (piece, np.array(start * piece.opens + row + end * piece.closes, dtype=kind))
        for piece, row in zip(pieces, rows, strict=True)
    ]


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    pieces = iter(pieces)
    while batch := list(islice(pieces, BATCH)):
        yield batch


def _ahead(encode: Callable, batches: Iterable[list[Piece]]) -> Iterator:
    """All of encode(batch), the next batch already under way while this one is used."""
    with ThreadPoolExecutor(1) as worker:
        waiting = []
        for batch in batches:
            waiting.append(worker.submit(encode, batch))
            if len(waiting) == 2:
                yield from waiting.pop(0).result()
        for last in waiting:
            yield from last.result()


def _name(files: list[Path | str]) -> str:
    first = "standard input" if files[0] == STDIN else Path(files[0]).name
    return first if len(files) == 1 else f"{first} and {len(files) - 1} more"


class _Bar:
    """A bar in bytes of text; with standard input it does not know how much is to come."""

    def __init__(self, total: int | None, shown: bool):
        self.bar = tqdm(total=total, unit="B", unit_scale=True, disable=not shown)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def count(self, what: str, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces, each counted as it goes by."""
        self.bar.reset(self.bar.total)
        self.bar.set_description(what)
        for piece in pieces:
            self.bar.update(len(piece.text.encode()))
            yield piece
