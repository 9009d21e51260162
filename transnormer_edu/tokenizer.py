"""Text to token ids and back, exactly.

A byte-level tokenizer has 256 pieces, one per byte, so there is no text that it cannot write.
Byte-pair encoding (BPE) starts there and then, again and again, merges the pair of neighbours that
is most frequent in the training text into a new piece: " the" becomes one token instead of four.
So both tokenizers here are one class; the byte tokenizer is the BPE with no merges.

    id   0 <pad>   1 <s>, starts a text   2 </s>, ends it   3 + b the byte b   259 ... the merges

0, 1, 2 are the released models' ids. A text that contains the letters "</s>" gets ordinary pieces
for them: no user's text can end a document or pad one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int64
from tokenizers import Tokenizer as Pipeline
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.atomic import write_text

SPECIAL = ["<pad>", "<s>", "</s>"]
FILE = "tokenizer.json"  # Hugging Face's own format: other programs read it too


class Tokenizer:
    """`encode`, `decode`, and how many bytes each token stands for."""

    pad_id, bos_id, eos_id = 0, 1, 2
    add_bos = True  # whether a text that is to be gone on with starts with <s>

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]):
        """From pieces with their ids and the merges in the order in which they were learned."""
        self._merges = merges
        self._pipeline = Pipeline(models.BPE(vocab=vocab, merges=merges))
        # First cut at words (a space belongs to the word after it), so that no piece spans two.
        self._pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._pipeline.decoder = decoders.ByteLevel()
        self._pipeline.add_special_tokens(SPECIAL)
        self._pipeline.encode_special_tokens = True  # "</s>" in a text is four letters, not id 2

    @classmethod
    def of_bytes(cls) -> "Tokenizer":
        """One token per byte: 259 ids, nothing learned."""
        return cls({piece: i for i, piece in enumerate(SPECIAL + byte_pieces())}, [])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 2048) -> "Tokenizer":
        """BPE of `vocab_size` pieces learned from `texts`, the training part of a corpus.

        The same texts give the same tokenizer. A short text may offer fewer merges than asked for;
        `vocab_size` is then smaller. Errors: ValueError for a vocab_size below 259.
        """
        first = SPECIAL + byte_pieces()
        texts = _several(texts)
        if not check.is_whole(vocab_size, least=len(first)):
            raise ValueError(
                f"vocab_size is {vocab_size!r}, expected at least {len(first)} (3 special tokens "
                f"and 256 bytes): raise it, or take the byte tokenizer, Tokenizer.of_bytes()."
            )
        learner = cls.of_bytes()._pipeline
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIAL,
            initial_alphabet=byte_pieces(),
            show_progress=False,
        )
        learner.train_from_iterator(texts, trainer)
        learned = json.loads(learner.to_str())["model"]
        # The trainer numbers the bytes in its own order; here byte b keeps id 3 + b.
        merged = sorted(set(learned["vocab"]) - set(first), key=learned["vocab"].get)
        merges = [tuple(pair) for pair in learned["merges"]]
        return cls({piece: i for i, piece in enumerate(first + merged)}, merges)

    @property
    def vocab_size(self) -> int:
        """Number of ids, the three special ones included."""
        return self._pipeline.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, with no start or end added. An empty text has none.

        Errors: TypeError for what is no text; ValueError for half of a surrogate pair in it.
        """
        return self._encode(_checked(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; pad, start and end are left out.

        `decode(encode(text)) == text` for every text. Ids that end in the middle of a character
        (a model may write such) show as �. Errors: ValueError for an id outside the vocabulary.
        """
        check.kind("ids", ids, Iterable)
        ids = check.plain(ids)
        wrong = [i for i in ids if not check.is_whole(i, below=self.vocab_size)]
        if wrong:
            raise ValueError(
                f"decode got the id {wrong[0]!r}, expected 0 to {self.vocab_size - 1}: "
                f"does this tokenizer belong to the model that wrote it?"
            )
        return self._decode(ids)

    def encode_documents(self, texts: Iterable[str]) -> Int64[Tensor, "tokens"]:
        """One long row of ids: <s> text </s> <s> text </s> ..., what training reads from."""
        row: list[int] = []
        for ids in self.encode_many(texts):
            row += [self.bos_id, *ids, self.eos_id]
        return torch.tensor(row, dtype=torch.int64)

    def encode_many(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        return self._many(_several(texts))

    def _encode(self, text: str) -> list[int]:
        return self._pipeline.encode(text).ids

    def _decode(self, ids: list[int]) -> str:
        return self._pipeline.decode(ids, skip_special_tokens=True)

    def _many(self, texts: Iterable[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._pipeline.encode_batch_fast(list(texts))]

    @cached_property
    def byte_counts(self) -> Int64[Tensor, "vocab"]:
        """Bytes that each id stands for, 0 for the special ones: turns bits into bits per byte."""
        counts = torch.zeros(self.vocab_size, dtype=torch.int64)
        for piece, i in self._pipeline.get_vocab().items():
            counts[i] = 0 if i < len(SPECIAL) else len(piece)  # a piece has one letter per byte
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """sha256, in hex, of the pieces by id and the merges: stored with every weight file."""
        vocab = self._pipeline.get_vocab()
        return hashlib.sha256(
            json.dumps([sorted(vocab, key=vocab.get), self._merges]).encode()
        ).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json into `folder`, whole or not at all."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / FILE, self._pipeline.to_str(pretty=True) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer that `save` wrote into `folder`.

        Errors: FileNotFoundError without a tokenizer.json; ValueError for one of another kind.
        """
        path = check.path("folder", folder) / FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {FILE} in {folder}: expected a folder that `transnormer-edu train` "
                f"wrote, such as runs/NAME/best."
            )
        try:
            model = json.loads(path.read_text(encoding="utf-8"))["model"]
            vocab, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
            first = {piece: i for i, piece in enumerate(SPECIAL + byte_pieces())}
            if first.items() <= vocab.items() and set(vocab.values()) == set(range(len(vocab))):
                return cls(vocab, merges)
        except Exception:  # the library raises its bare Exception for merges that do not fit
            pass
        raise ValueError(
            f"{path} is damaged or of another kind, expected the byte-level BPE that "
            f"Tokenizer.save writes: take the file that was saved with the weights."
        )


def _checked(text: str) -> str:
    check.kind("text", text, str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"letter {error.start} of the text is no Unicode, but a byte or half a letter; "
            "expected text: was it read in another encoding than it was written in?"
        ) from None
    return text


def _several(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"texts is a {type(texts).__name__}, expected several texts: [text]")
    return map(_checked, texts)


def byte_pieces() -> list[str]:
    """The letter by which byte 0, 1, ... 255 is written inside a piece, as in GPT-2.

    Printable bytes stand for themselves, the others for the letters from number 256 on: so a space
    (byte 32) is Ġ, and every piece can be printed.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b if b in printable else 256 + others.index(b)) for b in range(256)]
