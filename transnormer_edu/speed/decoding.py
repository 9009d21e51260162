"""Decoding: seconds per token, over what was read before, and over the rows decoded together.

Greedy, so that the next token is known on the device: no number leaves a GPU. TransNormerLLM by
`Decoder`, its twin by `CacheDecoder`; both as CUDA graphs on a GPU, with compiled blocks.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.decoder import Decoder, record
from transnormer_edu.model import State, TransNormerLLM
from transnormer_edu.speed import contestants
from transnormer_edu.speed.clock import compute_type, forget_peak, peak_bytes, seconds
from transnormer_edu.speed.results import Results
from transnormer_edu.transformer import Transformer, TransformerBlock

READ = {"cuda": (1024, 2**20), "cpu": (1024, 8192)}  # tokens before those that are timed, batch 1
TOGETHER = {"cuda": (64, 8192), "cpu": (16, 8192)}  # rows, and what each has read
TIMES, ROUND = 512, 0.3  # tokens in a row: at most so many, and in about so many seconds
PIECE = 32768  # a prompt is read so many tokens at a time
CHECKED = 64  # tokens decoded and read again in the chunked form, to compare


class CacheDecoder:
    """One token after another for the softmax twin, beside a cache of `n` tokens.

    The cache has its place from the start, and the new token always goes to its last place: as if
    it never grew, so no mask and no copy costs anything. Its numbers are random: speed does not
    depend on them.
    """

    def __init__(self, model: Transformer, n: int, batch: int, compiled: bool = False):
        config, weight = model.config, model.model["embed_tokens"].weight
        self.model = model
        shape = batch, config.heads, n + 1, config.dim // config.heads
        self.caches = [
            [torch.randn(shape, device=weight.device, dtype=weight.dtype) for _ in "kv"]
            for _ in range(config.layers)
        ]
        self.token = torch.zeros(batch, dtype=torch.long, device=weight.device)
        self.position = torch.full((batch, 1), n, device=weight.device)
        fuse = partial(torch.compile, dynamic=False) if compiled else lambda function: function
        self.before, self.after = fuse(_before), fuse(_after)
        self.graph = record(self._step) if weight.is_cuda else None

    @torch.no_grad()
    def __call__(self, token: Int[Tensor, "b"]) -> Float[Tensor, "b V"]:
        """The logits after this token. On a GPU the next call writes over them."""
        self.token.copy_(token)
        self._step() if self.graph is None else self.graph.replay()
        return self.logits

    @torch.no_grad()
    def _step(self) -> None:
        x = self.model.embed(self.token[:, None], self.position)
        for block, (keys, values) in zip(self.model.model["layers"], self.caches, strict=True):
            q, k, v = self.before(block, x, self.position)
            keys[:, :, -1:], values[:, :, -1:] = k, v
            x = self.after(block, x, F.scaled_dot_product_attention(q, keys, values))
        self.logits = self.model.head(x)[:, 0]


def _before(block: TransformerBlock, x: Tensor, position: Tensor) -> tuple:
    """q, k, v (b, h, 1, dh) of the new token."""
    return block.token_mixer.project(block.token_norm(x), position)


def _after(block: TransformerBlock, x: Tensor, o: Tensor) -> Tensor:
    """The block's output, for the heads' o (b, h, 1, dh)."""
    x = x + block.token_mixer.out_proj(o.transpose(1, 2).flatten(2))
    return x + block.channel_mixer(block.channel_norm(x))


def rows(
    results: Results, config: TransNormerConfig, names: tuple[str, ...], read, together
) -> Iterator[str]:
    """First whether decoding is right; then one text after `read` tokens each, then many."""
    if "ours" in names:
        yield from results.add({"what": "check", "model": "ours"}, partial(check, config, results))
    for batch, context in [*((1, n) for n in read), together]:
        for name in names:
            row = {"what": "decode", "model": name, "context": context, "batch": batch}
            measure = partial(decode_row, name, config, context, batch, results)
            if name == "ours" or (name == "twin" and context <= 2**17):
                yield from results.add(row, measure)


@torch.no_grad()
def decode_row(name, config, context, batch, results) -> dict:
    """Seconds per token, and how often the weights could have been copied in that time."""
    contestants.forget()
    device = results.device
    dtype = compute_type(device)
    model = contestants.build(name, config, device).to(dtype)
    fuse = device.type == "cuda"
    found, way = {}, None
    forget_peak(device)
    if name == "ours":
        if batch == 1:
            state, found["errors"] = _after_reading(model, context)
        else:
            state = empty_state(model, batch, context)
        decoder = Decoder(model, state, compiled=fuse and batch > 1)
    else:
        shape = batch, config.heads, 1, config.dim // config.heads
        way = next(iter(contestants.softmax_speeds(shape, device, dtype, keys=context + 1)))
        with contestants.softmax_by(way):
            decoder = CacheDecoder(model, context, batch, compiled=fuse)
    with contestants.softmax_by(way):
        step = _Greedy(decoder, batch, device)
        about = seconds(step, device, rounds=1, times=4)
        each = seconds(step, device, times=min(TIMES, max(1, int(ROUND / about))))
    floor = contestants.parameters(model) * dtype.itemsize / results.all["copy_bytes_per_s"]
    return found | {
        "ms": 1e3 * each,
        "tokens_per_s": batch / each,
        "of_weight_floor": each / floor,
        "peak_bytes": peak_bytes(device),
        "softmax": way.name if way else None,
    }


class _Greedy:
    """Each call decodes one token more, the likeliest."""

    def __init__(self, decoder, batch: int, device: torch.device):
        self.decoder = decoder
        self.token = torch.full((batch,), 5, device=device)

    def __call__(self) -> None:
        self.token = self.decoder(self.token).argmax(-1)


def empty_state(model: TransNormerLLM, batch: int, read: int) -> State:
    """A state of zeros for `batch` rows, as if `read` tokens had been read."""
    config, device = model.config, model.model["embed_tokens"].weight.device
    layers = [
        torch.zeros(
            batch, config.heads, config.head_dim * (1 + (i in config.lrpe_layers)),
            config.head_dim, device=device,
        )
        for i in range(config.layers)
    ]  # fmt: skip
    return State(tuple(layers), torch.full((batch,), read, device=device))


def read_in_pieces(model: TransNormerLLM, ids: Int[Tensor, "b n"]) -> State:
    """The state after all of `ids`, with the memory that one piece needs."""
    state = None
    for piece in ids.split(PIECE, dim=1):
        _, state = model.next_token(piece, state=state)
    return state


def _after_reading(model: TransNormerLLM, n: int) -> tuple[State, dict]:
    """The state after n random tokens, really read, and how far the last logits are from those of
    the chunked form: |decoded - chunked| / |chunked|, and the same for a state without the text."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (1, n), generator=draw)
    ids = ids.to(model.model["embed_tokens"].weight.device)
    state = read_in_pieces(model, ids[:, :-CHECKED])
    last = ids[:, -CHECKED:]
    chunked, after = model(last, state=state, return_state=True)
    alone = model(last)
    return after, {
        "decoded": gap(decoded(model, state, last), chunked),
        "without the text": gap(alone, chunked),
    }


def decoded(model: TransNormerLLM, state: State, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n V"]:
    """The logits of ids, token after token."""
    decoder = Decoder(model, state)
    return torch.stack([decoder(token).clone() for token in ids.unbind(1)], dim=1)


def gap(x: Tensor, reference: Tensor) -> float:
    """|x - reference| / |reference|, in float32."""
    x, reference = x.float(), reference.float()
    return ((x - reference).norm() / reference.norm()).item()


@torch.no_grad()
def check(config: TransNormerConfig, results: Results) -> dict:
    """Decoded logits against the whole text read at once in float32, beside the same in `dtype`.

    Few rows (one kernel for each matrix) and many; right, if decoding is as near as reading is.
    """
    contestants.forget()
    device = results.device
    exact = contestants.build("ours", config, device)
    narrow = contestants.build("ours", config, device).to(compute_type(device))
    errors = {}
    for rows_together in (2, 12):
        draw = torch.Generator().manual_seed(rows_together)
        ids = torch.randint(3, config.vocab_size, (rows_together, 72), generator=draw).to(device)
        reference = exact(ids)[:, 40:]
        _, state = narrow.next_token(ids[:, :40])
        errors[f"decoded {rows_together}"] = gap(decoded(narrow, state, ids[:, 40:]), reference)
        errors[f"read {rows_together}"] = gap(narrow(ids)[:, 40:], reference)
    right = all(
        errors[f"decoded {rows}"] <= 1.5 * errors[f"read {rows}"] + 1e-4 for rows in (2, 12)
    )
    return {"errors": errors, "holds": right}
