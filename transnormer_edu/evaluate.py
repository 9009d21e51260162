"""How well a model foretells a text: loss, perplexity and bits per byte.

    loss            L = -(1/T) sum_t ln p(x_t | x_<t)      nats per token
    perplexity      exp(L)                                 as if so many tokens were equally likely
    bits per byte   sum_t -log2 p(x_t | x_<t) / bytes      comparable between tokenizers, and with
                                                           what `zlib -9` needs for the same text

A text longer than the context is read in windows that overlap, by half unless told otherwise. Only
what a window adds is scored, so each token is foretold exactly once and, but for the first window,
from at least half a context. That is one rule for every model; the softmax baseline could not read
an endless text in any other way. A TransNormerLLM can: with `carry_state=True` each window starts
from the state that the one before left behind, and every token is foretold from all before it.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from transnormer_edu import check
from transnormer_edu.model import IGNORED_LABEL
from transnormer_edu.tokenizer import Tokenizer


@dataclass(frozen=True)
class Score:
    """What foretelling a text has cost.

    nats     sum of -ln p over all scored tokens
    tokens   how many were scored
    bytes    how many UTF-8 bytes they stand for
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where the loss is too large for a float."""
        return math.inf if self.loss >= 700 else math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of the text."""
        return self.nats / math.log(2) / self.bytes

    def as_dict(self) -> dict:
        """All of it as plain numbers, for JSON."""
        return asdict(self) | {"loss": self.loss, "bits_per_byte": self.bits_per_byte}

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.3f} nats per token, perplexity {self.perplexity:.2f}, "
            f"{self.bits_per_byte:.3f} bits per byte ({self.tokens} tokens, {self.bytes} bytes)"
        )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    tokenizer: Tokenizer,
    text: str,
    context: int = 256,
    stride: int | None = None,
    batch_size: int = 16,
    max_windows: int | None = None,
    carry_state: bool = False,
) -> Score:
    """Score `text` under `model`; the first token is foretold from the start token <s>.

    context       tokens a window reads
    stride        tokens a window adds; None: context // 2. context: no overlap, twice as fast, and
                  a slightly higher loss, since the first tokens of a window have no past
    batch_size    windows read at once
    max_windows   score only so many, spread evenly over the text (a quick look while training)
    carry_state   read the text in one go, window after window, with the state carried on: no stride

    Errors: ValueError for a text that is empty or has no token, carry_state with max_windows, a
    context below 2, a stride outside 1..context, or a tokenizer with more ids than the model knows.
    """
    check.whole("context", context)
    stride = max(1, context // 2) if stride is None else stride
    _check(text, context, stride, batch_size, max_windows)
    check_fit(model, tokenizer)
    if carry_state and max_windows is not None:
        raise ValueError("carry_state reads the whole text, max_windows a part: give one of them.")
    row = torch.tensor([tokenizer.bos_id, *tokenizer.encode(text)])
    if len(row) == 1:
        raise ValueError(f"The text {text!r} has no token for this tokenizer: give another one.")
    context = min(context, max(2, len(row) - 1))  # a window is never longer than the text
    stride = min(stride, context)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        if carry_state:
            inputs, targets = row[None, :-1], row[None, 1:]
            nats = _in_one_go(model, inputs.to(device), targets.to(device), context)
        else:
            inputs, targets = cut_windows(row, context, stride, max_windows)
            batches = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
            nats = sum(_nats(model, ids.to(device), goal.to(device)) for ids, goal in batches)
        scored = targets[targets != IGNORED_LABEL]
        return Score(nats, len(scored), int(tokenizer.byte_counts[scored].sum()))
    finally:
        model.train(was_training)


def cut_windows(
    row: Int64[Tensor, "n"], context: int, stride: int, max_windows: int | None = None
) -> tuple[Int64[Tensor, "w c"], Int64[Tensor, "w c"]]:
    """Windows of `context` inputs and their next tokens, -100 where a token is scored elsewhere.

    [a b c d e f], context 4, stride 2  ->  inputs [a b c d] [c d e 0]
                                           targets [b c d e] [. . f .]
    """
    starts = torch.arange(0, max(1, len(row) - 1 - (context - stride)), stride)
    if max_windows is not None and max_windows < len(starts):
        starts = starts[torch.linspace(0, len(starts) - 1, max_windows).long()]
    at = starts[:, None] + torch.arange(context)
    padded = F.pad(row, (0, context + 1))
    inputs, targets = padded[at], padded[at + 1]
    scored_before = (starts[:, None] > 0) & (torch.arange(context) < context - stride)
    return inputs, targets.masked_fill(scored_before | (at + 1 >= len(row)), IGNORED_LABEL)


def _in_one_go(model, inputs, targets, context) -> float:
    """The whole row, piece by piece, from one state to the next."""
    nats, state = 0.0, None
    for ids, goal in zip(inputs.split(context, 1), targets.split(context, 1), strict=True):
        more, state = model.nats(ids, goal, state, return_state=True)
        nats += more.item()
    return nats


def _nats(model, inputs, targets) -> float:
    if hasattr(model, "nats"):
        return model.nats(inputs, targets).item()
    logits = model(inputs).flatten(0, 1)  # of a model that is not ours
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(
        wide, targets.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    ).item()


def _check(text, context, stride, batch_size, max_windows):
    if not text:
        raise ValueError("The text to evaluate is empty: give at least one character.")
    if context < 2:
        raise ValueError(f"context is {context}, expected at least 2 tokens.")
    if not check.is_whole(stride, least=1, below=context + 1):
        raise ValueError(f"stride is {stride!r}, expected 1 to the context, {context}.")
    check.whole("batch_size", batch_size)
    if max_windows is not None:
        check.whole("max_windows", max_windows)


def check_fit(model: nn.Module, tokenizer: Tokenizer) -> None:
    """ValueError where the tokenizer has ids that the model does not know."""
    check.kind("model", model, nn.Module)
    check.kind("tokenizer", tokenizer, Tokenizer)
    known = model.config.vocab_size
    if tokenizer.vocab_size > known:
        raise ValueError(
            f"The tokenizer has {tokenizer.vocab_size} ids and the model knows {known}: use the "
            f"tokenizer.json that was saved with these weights."
        )
