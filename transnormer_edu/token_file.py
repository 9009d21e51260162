"""A text as one long row of token ids on the disk, mapped into memory and never read as a whole.

    folder/
      tokens.bin       the ids, 2 or 4 bytes each, lowest byte first: training part, then held-out
      tokens.json      how many, of which type, of which tokenizer, where the held-out part begins
      tokenizer.json   (or the file of a released tokenizer)

    data = TokenFile("folder")
    Batches(data.row(data.tokenizer), context=2048, batch_size=8, seed=0)[5]

Any number of processes may map one file: the system keeps one copy of what they look at. A text of
hundreds of gigabytes opens at once. `transnormer-edu data prepare` writes it (prepare.py).
"""

import json
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Integer
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.released_tokenizers import load_tokenizer
from transnormer_edu.tokenizer import Tokenizer

TOKENS, ABOUT = "tokens.bin", "tokens.json"
FORMAT = "transnormer-edu tokens 1"
KINDS = {"uint16": torch.uint16, "int32": torch.int32}
COUNTS = ("vocab_size", "train_tokens", "held_out_tokens", "train_bytes", "held_out_bytes")


def kind_of(vocab_size: int) -> str:
    """The narrowest type that holds every id below `vocab_size`, by its name."""
    return "uint16" if vocab_size <= 2**16 else "int32"


class TokenFile:
    """A prepared text, to train on in place of a `data.Corpus`: it answers the same questions.

    name, source, notes, fingerprint, train_bytes, held_out_text, describe(), row(tokenizer)

    Errors: FileNotFoundError where there is none; ValueError, naming the file, for tokens.json that
    is damaged, and for tokens.bin of another length than that says. (What stands in tokens.bin is
    never read as a whole: nothing tells of a byte that changed there.)
    """

    def __init__(self, path: str | Path):
        folder = check.path("path", path).expanduser().absolute()
        self.folder = folder.parent if folder.name in (TOKENS, ABOUT) else folder
        if not is_prepared(self.folder):
            raise FileNotFoundError(
                f"There is no {ABOUT} in {self.folder}: expected a folder that `transnormer-edu "
                f"data prepare` wrote."
            )
        self.about = _read_about(self.folder / ABOUT)
        self.name, self.fingerprint = self.about["name"], self.about["sha256"]
        self.source, self.notes = str(self.folder), tuple(self.about["notes"])
        self.train_bytes = self.about["train_bytes"]
        self.ids = self._map()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids."""
        return load_tokenizer(self.folder)

    @property
    def train(self) -> Integer[Tensor, "tokens"]:
        """The ids to learn from: <s> document </s> <s> ..., not copied."""
        return self.ids[: self.about["train_tokens"]]

    @property
    def held_out(self) -> Integer[Tensor, "tokens"]:
        """The ids to be examined on, not copied."""
        return self.ids[self.about["train_tokens"] :]

    def row(self, tokenizer: Tokenizer) -> Integer[Tensor, "tokens"]:
        """`train`, for a model that has this tokenizer. ValueError for another one."""
        here, there = self.about["tokenizer_sha256"], tokenizer.fingerprint
        if here != there:
            raise ValueError(
                f"{self.folder} was prepared with the tokenizer {here[:12]}, the model has "
                f"{there[:12]}: prepare the text again, with --tokenizer and the model's folder."
            )
        return self.train

    @cached_property
    def held_out_text(self) -> str:
        """The held-out part as text: documents with a blank line between them."""
        ids, end = self.held_out.to(torch.int64), self.tokenizer.eos_id
        borders = (ids == end).nonzero()[:, 0] + 1
        documents = ids.tensor_split(borders.tolist()) if len(borders) else [ids]
        texts = (self.tokenizer.decode(document.tolist()) for document in documents)
        return "\n\n".join(text for text in texts if text)

    def describe(self) -> str:
        """One line for the log."""
        a = self.about
        return (
            f"{self.name}: {a['train_tokens']:,} tokens ({a['train_bytes']:,} bytes) to train on, "
            f"{a['held_out_tokens']:,} ({a['held_out_bytes']:,} bytes) held out, vocabulary "
            f"{a['vocab_size']:,}, sha256 {self.fingerprint}"
        )

    def _map(self) -> Integer[Tensor, "tokens"]:
        path, kind = self.folder / TOKENS, KINDS[self.about["dtype"]]
        count = self.about["train_tokens"] + self.about["held_out_tokens"]
        size = path.stat().st_size if path.is_file() else 0
        if size != count * kind.itemsize:
            raise ValueError(
                f"{path} has {size:,} bytes, expected {count * kind.itemsize:,}, as {ABOUT} says: "
                f"was it copied only in part?"
            )
        return torch.from_file(str(path), shared=False, size=count, dtype=kind)


def is_prepared(path: str | Path) -> bool:
    """Whether `path` is a folder (or a file in one) that holds a prepared text."""
    path = Path(path).expanduser()
    folder = path.parent if path.name in (TOKENS, ABOUT) else path
    return (folder / ABOUT).is_file()


def _read_about(path: Path) -> dict:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format is {about['format']!r}, expected {FORMAT!r}")
        check.one_of("dtype", about["dtype"], KINDS)
        for name in COUNTS:
            check.whole(name, about[name], least=0)
        for name in ("name", "sha256", "tokenizer_sha256"):
            check.kind(name, about[name], str)
        check.kind("notes", about["notes"], list)
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it lacks {error}; prepare the text again") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); prepare the text again") from error
    return about
