"""Text in, text out: a model and its tokenizer write on from a prompt, piece by piece."""

from collections.abc import Iterator

from transnormer_edu.generate import stream
from transnormer_edu.model import LanguageModel
from transnormer_edu.tokenizer import Tokenizer


def write_text(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 120, **choices
) -> Iterator[str]:
    """Yield the text that follows `prompt`, as soon as it is known; choices are `stream`'s.

    A token may end inside a letter of several bytes, so a piece is given out only once the
    tokens so far decode to whole letters.
    """
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    waiting: list[int] = []
    for token in stream(model, ids, max_new_tokens, **choices):
        waiting.append(int(token[0]))
        piece = tokenizer.decode(waiting)
        if not piece.endswith("\N{REPLACEMENT CHARACTER}"):
            yield piece
            waiting = []
    if waiting:
        yield tokenizer.decode(waiting)
