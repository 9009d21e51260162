"""The tokenizers of the released models, read from their folders, with the interface of our own.

    tokenizer.model    Baichuan's, of TransNormerLLM and TransNormerLLM2: sentencepiece, 64,000
                       pieces; unknown 0, start 1, end 2
    *.tiktoken         of TransNormerLLM3: a line for each piece, its bytes in base 64 and its id

Both libraries are needed only here: pip install "transnormer-edu[released]".
"""

import base64
import hashlib
import importlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from transnormer_edu.atomic import whole_file, write_text
from transnormer_edu.tokenizer import FILE, Tokenizer

MODEL = "tokenizer.model"
IDS = "tiktoken_ids.json"  # ours: vocab_size and special ids, which no .tiktoken file has
# The special pieces of OpenAI's cl100k_base, of which TransNormerLLM3's size, 100,280, is the next
# multiple of 8; and how it cuts a text before it merges (both from the library tiktoken).
CL100K_SPECIAL = {
    "<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276,
}  # fmt: skip
CL100K_CUT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in a folder of weights, or beside it where it is one of several revisions.

    Errors: FileNotFoundError where there is none; ValueError for a damaged one; ImportError, with
    what to install, where its library is missing.
    """
    for place in (Path(folder), Path(folder).absolute().parent):
        ranks = sorted(place.glob("*.tiktoken"))
        if ranks:
            return TiktokenTokenizer(ranks[0].read_bytes(), ranks[0], _ids(folder, place))
        if (place / MODEL).is_file():
            return SentencePieceTokenizer((place / MODEL).read_bytes(), place / MODEL)
        if (place / FILE).is_file():
            return Tokenizer.load(place)
    raise FileNotFoundError(
        f"there is no tokenizer in {folder}; expected {FILE}, {MODEL} or a .tiktoken file"
    )


class ReleasedTokenizer(Tokenizer):
    """What both have in common: their file is kept as it is, and texts start without <s>."""

    add_bos = False

    def __init__(self, data: bytes, path: str | Path):
        self._data, self._path = data, Path(path)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the file, in hex."""
        return hashlib.sha256(self._data).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write the file as it was read into `folder`, whole or not at all."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with whole_file(Path(folder) / self._path.name) as file:
            file.write(self._data)

    @cached_property
    def byte_counts(self) -> Int64[Tensor, "vocab"]:
        """Bytes that each id stands for, 0 for the special ones."""
        return torch.tensor([len(self._piece(i)) for i in range(self.vocab_size)])

    def _many(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def _damaged(self, error: Exception | str) -> ValueError:
        return ValueError(f"{self._path} cannot be read ({error}); copy or download it again")


class SentencePieceTokenizer(ReleasedTokenizer):
    """A sentencepiece model. What its normaliser changes in a text does not come back."""

    def __init__(self, data: bytes, path: str | Path = MODEL):
        super().__init__(data, path)
        library = _library("sentencepiece")
        try:
            self._model = library.SentencePieceProcessor(model_proto=data)
        except (RuntimeError, OSError) as error:
            raise self._damaged(error) from None
        if not self._model.vocab_size():
            raise self._damaged("it is empty")
        self.bos_id, self.eos_id = self._model.bos_id(), self._model.eos_id()
        self.pad_id = max(self._model.pad_id(), 0)  # the released models pad with 0

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size()

    def _encode(self, text: str) -> list[int]:
        return self._model.encode(text)

    def _decode(self, ids: list[int]) -> str:
        special = {self.pad_id, self.bos_id, self.eos_id}
        return self._model.decode([i for i in ids if i not in special])

    def _piece(self, i: int) -> bytes:
        model = self._model
        if model.is_control(i) or model.is_unknown(i) or model.is_unused(i):
            return b""
        if model.is_byte(i):
            return b"\0"  # one byte, whichever
        return model.id_to_piece(i).replace("\u2581", " ").encode()


class TiktokenTokenizer(ReleasedTokenizer):
    """A tiktoken vocabulary, cut as cl100k_base is.

    ids    pad, bos and eos of the model's config; where they are ordinary pieces, <|endoftext|>, or
           in a vocabulary too small for that the first id that is no piece
    """

    def __init__(self, data: bytes, path: str | Path = "x.tiktoken", ids: dict | None = None):
        super().__init__(data, path)
        library = _library("tiktoken")
        ids = ids or {}
        size = ids.get("vocab_size", max(CL100K_SPECIAL.values()) + 1)
        try:
            lines = (line.split() for line in data.splitlines() if line)
            self._ranks = {base64.b64decode(piece, validate=True): int(i) for piece, i in lines}
            if sorted(self._ranks.values()) != list(range(len(self._ranks))):
                raise ValueError("its ids are not 0, 1, 2, ...")  # the library would panic
            special = {s: i for s, i in CL100K_SPECIAL.items() if len(self._ranks) <= i < size}
            self._model = library.Encoding(
                self._path.stem,
                pat_str=CL100K_CUT,
                mergeable_ranks=self._ranks,
                special_tokens=special,
            )
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from None
        self._absent = set(range(256)) - {piece[0] for piece in self._ranks if len(piece) == 1}
        self._size = max(ids.get("vocab_size", 0), self._model.n_vocab)
        end = special.get("<|endoftext|>", min(len(self._ranks), self._size - 1))
        for name in ("pad", "bos", "eos"):
            own = ids.get(f"{name}_token_id", end)
            setattr(self, f"{name}_id", own if own >= len(self._ranks) else end)
        self._pieces = {i: piece for piece, i in self._ranks.items()}

    @property
    def vocab_size(self) -> int:
        return self._size

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the file and of the ids that come from elsewhere, in hex."""
        return hashlib.sha256(self._data + self._own_ids().encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write the file as it was read into `folder`, and the ids beside it."""
        super().save(folder)
        write_text(Path(folder) / IDS, self._own_ids())

    def _own_ids(self) -> str:
        ids = {f"{name}_token_id": getattr(self, f"{name}_id") for name in ("pad", "bos", "eos")}
        return json.dumps({"vocab_size": self.vocab_size} | ids) + "\n"

    def _encode(self, text: str) -> list[int]:
        if absent := self._absent.intersection(text.encode()):
            raise self._damaged(f"no piece for the byte {min(absent)}")
        return self._model.encode_ordinary(text)

    def _decode(self, ids: list[int]) -> str:
        return b"".join(map(self._piece, ids)).decode("utf-8", errors="replace")

    def _piece(self, i: int) -> bytes:
        return self._pieces.get(i, b"")  # special ones, and those that only fill the size


def _library(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(
            f'this tokenizer needs {name}: pip install {name}, or "transnormer-edu[released]"'
        ) from None


def _ids(*places: str | Path) -> dict:
    """vocab_size and special ids: our own note of them, or the nearest config.json's."""
    for path in (Path(place) / name for place in places for name in (IDS, "config.json")):
        if path.is_file():
            given = json.loads(path.read_text(encoding="utf-8"))
            return {name: i for name, i in given.items() if isinstance(i, int)}
    return {}
