"""What every row of an ablation reads: one row of tokens to learn from, windows to be scored on.

Made once, from the packages installed here (installed_text.py), with a tokenizer learned from the
beginning of the training part; then loaded by every process. Each token is two bytes.
"""

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int16
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from transnormer_edu.atomic import whole_folder
from transnormer_edu.data import Document
from transnormer_edu.installed_text import installed_corpus
from transnormer_edu.tokenizer import Tokenizer

TENSORS = "tokens.safetensors"
BYTES_PER_TOKEN = 4  # more than a token is long on average, so that enough text is read
TOKENIZER_BYTES = 20_000_000  # of the training part
AT_ONCE = 1000  # documents that are tokenized together


@dataclass(frozen=True)
class Tokens:
    """Tokens to learn from, windows to be scored on, and what they are.

    train      one row of documents, each between <s> and </s>
    held_out   windows of packages that are not in `train`
    about      corpus, fingerprints, number of bytes scored: plain values
    """

    train: Int16[Tensor, "n"]
    held_out: Int16[Tensor, "w c"]
    about: dict


def tokens_in(folder: str | Path, train: int, held_out: int, context: int, vocab: int) -> Tokens:
    """The tokens kept in `folder`; made there first, if nobody has.

    train, held_out   tokens of each part; context: of one window; vocab: pieces of the tokenizer

    Errors: ValueError where the packages here hold too little, or the folder was made otherwise.
    """
    asked = {"train": train, "held_out": held_out, "context": context, "vocab": vocab}
    folder = Path(folder)
    if not (folder / TENSORS).is_file():
        _make(folder, asked)
    with safe_open(folder / TENSORS, "pt") as file:
        about = json.loads(file.metadata()["about"])
        if about["asked"] != asked:
            raise ValueError(
                f"{folder} was made for {about['asked']}, asked for are {asked}: give another --out"
            )
        return Tokens(file.get_tensor("train"), file.get_tensor("held_out"), about)


def _make(folder: Path, asked: dict) -> None:
    sizes = [int(BYTES_PER_TOKEN * asked[part]) for part in ("train", "held_out")]
    corpus = installed_corpus(*sizes)
    tokenizer = Tokenizer.train(_beginning(corpus.train), asked["vocab"])
    train = _encode(tokenizer, corpus.train, asked["train"])
    held_out = _encode(tokenizer, corpus.held_out, asked["held_out"])
    held_out = held_out.view(-1, asked["context"])
    scored = tokenizer.byte_counts[held_out[:, 1:].long()]
    about = {
        "asked": asked,
        "corpus": f"installed beside Python {platform.python_version()}: sources and docs",
        "train_packages": len(_packages(corpus.train)),
        "held_out_packages": _packages(corpus.held_out),
        "corpus_sha256": corpus.fingerprint,
        "tokenizer_sha256": tokenizer.fingerprint,
        "tokens_sha256": _sha256(train, held_out),
        "scored_tokens": scored.numel(),
        "scored_bytes": int(scored.sum()),
        "vocab_size": tokenizer.vocab_size,
    }
    with whole_folder(folder, last=TENSORS) as part:
        tokenizer.save(part)
        tensors = {"train": train, "held_out": held_out}
        save_file(tensors, part / TENSORS, metadata={"about": json.dumps(about)})


def _beginning(documents: tuple[Document, ...]) -> Iterator[str]:
    size = 0
    for document in documents:
        yield document.text
        size += len(document.text)
        if size >= TOKENIZER_BYTES:
            return


def _encode(tokenizer: Tokenizer, documents: tuple[Document, ...], wanted: int) -> Tensor:
    """The first `wanted` tokens of these documents."""
    rows, length = [], 0
    for i in range(0, len(documents), AT_ONCE):
        texts = (document.text for document in documents[i : i + AT_ONCE])
        rows.append(tokenizer.encode_documents(texts).to(torch.int16))
        length += len(rows[-1])
        if length >= wanted:
            return torch.cat(rows)[:wanted].clone()
    raise ValueError(f"the text that was read gives {length:,} tokens, expected {wanted:,}")


def _packages(documents: tuple[Document, ...]) -> list[str]:
    return sorted({document.name.split("/")[0] for document in documents})


def _sha256(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
