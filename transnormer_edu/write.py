"""Text in, text out: a model and its tokenizer write on from a prompt, piece by piece."""

from collections.abc import Iterator

from transnormer_edu.generate import stream
from transnormer_edu.model import LanguageModel
from transnormer_edu.tokenizer import Tokenizer

CONTEXT = 8  # tokens before a new one that are decoded with it


def write_text(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 120, **choices
) -> Iterator[str]:
    """The text that follows `prompt`, piece by piece as it is written; choices are `stream`'s."""
    ids = tokenizer.encode(prompt)
    if tokenizer.add_bos or not ids:
        ids = [tokenizer.bos_id, *ids]
    choices = {"stop_tokens": tokenizer.eos_id} | choices
    return _whole_letters(stream(model, ids, max_new_tokens, **choices), tokenizer, ids)


def printable(text: str) -> str:
    """Control characters, which a young model of bytes writes too, could upset the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _whole_letters(tokens, tokenizer: Tokenizer, before: list[int]) -> Iterator[str]:
    """The text of each token: what it adds to the text of those before it.

    (Alone, the first token of a text may lose the space in front of it.) A token may end inside a
    letter of several bytes: wait until the letter is whole.
    """
    known, waiting = before[-CONTEXT:], []
    for token in tokens:
        waiting.append(int(token[0]))
        text = tokenizer.decode(known + waiting)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(tokenizer.decode(known)) :]
            known, waiting = (known + waiting)[-CONTEXT:], []
    if waiting:
        yield tokenizer.decode(known + waiting)[len(tokenizer.decode(known)) :]
