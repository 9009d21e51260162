"""Decoding: read the prompts once, then token by token from the state.

A row's cost per token does not depend on how much was read before; the softmax baseline, through
the same functions, pays for its whole past at every token.
"""

import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.decoder import Decoder
from transnormer_edu.model import WHOLE, LanguageModel, TransNormerLLM

Prompts = Tensor | Sequence[int] | Sequence[Sequence[int]] | Sequence[Tensor]


def generate(
    model: LanguageModel, ids: Prompts, max_new_tokens: int = 24, **choices
) -> Int[Tensor, "b new"]:
    """The new tokens, (b, at most max_new_tokens); the pad id after a row's stop token.

    Takes the choices of `stream`, and ends early once every row has stopped.
    """
    return torch.stack(list(stream(model, ids, max_new_tokens, **choices)), dim=1)


def stream(
    model: LanguageModel,
    ids: Prompts,
    max_new_tokens: int = 24,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: int | Tensor | Sequence[int | Tensor] | None = None,
    attention_mask: Tensor | None = None,
    seed: int | None = None,
) -> Iterator[Int[Tensor, "b"]]:
    """Yield one new token for each row, as soon as it is known.

    ids              (b, n) tokens; or one prompt, or a list of prompts of unequal length
    temperature      0: always the likeliest token; 1: as the model says; above: more even
    top_k, top_p     draw from the k likeliest; from the fewest that hold a share p of the mass
    stop_tokens      a row ends after it, or one of these; None: the eos token; (): never
    attention_mask   (b, n), 0 at padding, for ids that come padded
    seed             of the draws: the same seed, the same text on the same machine

    Raises ValueError, or TypeError for a wrong type, in one sentence, for prompts and numbers that
    cannot work; FloatingPointError where the model's logits are no numbers.
    """
    if not hasattr(model, "next_token"):
        raise TypeError(
            f"model is a {type(model).__name__}, expected a model such as "
            "TransNormerLLM.from_pretrained(folder)"
        )
    _check_choices(max_new_tokens, temperature, top_k, top_p, seed)
    device = model.model["embed_tokens"].weight.device
    ids, attention_mask = _as_batch(ids, attention_mask, model.config.pad_token_id)
    given, ids = ids, ids.to(device)
    attention_mask = attention_mask.to(device) if attention_mask is not None else None
    model.check_input(ids, attention_mask=attention_mask)
    if given.device.type == "cpu" != device.type:  # there they were not looked at
        model.check_values(given)
    stops = torch.tensor(_stop_ids(stop_tokens, model.config), dtype=torch.long, device=device)
    draw = torch.Generator(device)
    draw.manual_seed(int(seed)) if seed is not None else draw.seed()
    choose = lambda logits: _choose(logits, temperature, top_k, top_p, draw)  # noqa: E731
    return _decode(model, ids, attention_mask, max_new_tokens, stops, choose)


def _decode(model, ids, attention_mask, max_new_tokens, stops, choose):
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    with torch.no_grad():
        logits, state = model.next_token(ids, attention_mask)
    step = None
    for left in reversed(range(max_new_tokens)):
        token = choose(logits).masked_fill(ended, model.config.pad_token_id)
        ended = ended | torch.isin(token, stops)
        yield token
        if left == 0 or ended.all():
            return
        step = step or _stepper(model, state)
        logits = step(token)


def _stepper(model, state):
    """token (b,) -> logits (b, V), in place where the model's state has a fixed size."""
    if isinstance(model, TransNormerLLM):
        return Decoder(model, state)

    @torch.no_grad()
    def step(token):
        nonlocal state
        logits, state = model.next_token(token[:, None], state=state)
        return logits

    return step


def _choose(
    logits: Float[Tensor, "b v"], temperature, top_k, top_p, draw: torch.Generator
) -> Int[Tensor, "b"]:
    best = logits.amax(dim=-1)  # NaN where any of the row is
    wrong = best[~best.isfinite()]
    if wrong.numel():
        raise FloatingPointError(
            f"a largest logit is {wrong[0].item()}, expected a number: are the weights whole? (In "
            "float16 large activations overflow; from_pretrained(folder, torch.float32) does not.)"
        )
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() - logits.float().amax(dim=-1, keepdim=True)  # so that none overflows
    logits, token = (logits / max(temperature, 1e-30)).sort(dim=-1, descending=True)
    if top_k is not None:
        logits[:, top_k:] = -torch.inf
    share = logits.softmax(dim=-1)
    if top_p is not None:
        before = share.cumsum(dim=-1) - share  # mass of all likelier tokens; 0 for the first
        share = share.masked_fill(before >= top_p, 0)
    return token.gather(1, torch.multinomial(share, 1, generator=draw))[:, 0]


def _as_batch(ids: Prompts, attention_mask, pad: int) -> tuple[Tensor, Tensor | None]:
    """Prompts as one (b, n) tensor, the shorter ones padded on the left, and the mask for that."""
    check.tensors(**check.present(attention_mask=attention_mask))
    if isinstance(ids, Tensor):
        return ids[None] if ids.ndim == 1 else ids, attention_mask
    if attention_mask is not None:
        raise ValueError("attention_mask came with a list of prompts, which needs none: leave it")
    rows = _as_rows(ids)
    n = max(map(len, rows))
    batch = torch.full((len(rows), n), pad)
    mask = torch.zeros((len(rows), n), dtype=torch.bool)
    for i, row in enumerate(rows):
        batch[i, n - len(row) :], mask[i, n - len(row) :] = row, True
    return batch, None if mask.all() else mask


def _as_rows(ids) -> list[Tensor]:
    """One tensor of ids for each prompt; a single prompt is a list of one."""
    try:
        if isinstance(ids, str | Mapping):
            raise TypeError("no ids")
        rows = [torch.as_tensor(row) for row in ids]
        rows = [torch.stack(rows)] if rows and rows[0].ndim == 0 else rows
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"ids is {reprlib.repr(ids)}, expected token ids: a tensor (b, n), one prompt or a "
            "list of prompts; a tokenizer's encode makes them of text"
        ) from None
    if any(row.dtype not in WHOLE for row in rows if row.numel()):
        raise ValueError("a prompt holds fractions; expected token ids, which are whole numbers")
    if not rows or not all(row.ndim == 1 and len(row) for row in rows):
        raise ValueError("a prompt is empty; expected at least one token (for instance bos)")
    return rows


def _stop_ids(stop_tokens, config) -> list[int]:
    if stop_tokens is None:
        return [config.eos_token_id]
    is_one = not isinstance(stop_tokens, Iterable) or getattr(stop_tokens, "ndim", 1) == 0
    given = check.plain([stop_tokens] if is_one else stop_tokens)
    for token in given:
        if not check.is_whole(token, below=config.vocab_size):
            raise ValueError(
                f"stop_tokens holds {token!r}, expected tokens from 0 to {config.vocab_size - 1}; "
                "() for none"
            )
    return given


def _check_choices(max_new_tokens, temperature, top_k, top_p, seed):
    check.whole("max_new_tokens", max_new_tokens)
    if not (check.is_number(temperature) and math.isfinite(temperature) and temperature >= 0):
        raise ValueError(
            f"temperature is {temperature!r}, expected 0 (greedy) or a positive number"
        )
    if top_k is not None and not check.is_whole(top_k, least=1):
        raise ValueError(f"top_k is {top_k!r}, expected at least 1, or None for all")
    if top_p is not None and not (check.is_number(top_p) and 0 < top_p <= 1):
        raise ValueError(f"top_p is {top_p!r}, expected a share above 0 and up to 1")
    if seed is not None and not check.is_whole(seed, least=-(2**63), below=2**64):
        raise ValueError(f"seed is {seed!r}, expected a whole number of at most 64 bits, or None")
