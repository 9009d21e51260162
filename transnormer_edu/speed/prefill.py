"""Prefill: seconds until a prompt is read and its state kept, so that decoding can begin."""

from collections.abc import Iterator
from functools import partial

import torch

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.speed import contestants
from transnormer_edu.speed.clock import compute_type, forget_peak, peak_bytes, seconds
from transnormer_edu.speed.results import Results

CONTEXTS = {"cuda": (32768, 2048, 8192), "cpu": (512, 2048, 8192)}


def rows(
    results: Results, config: TransNormerConfig, names: tuple[str, ...], contexts
) -> Iterator[str]:
    """One prompt of each length for ours and the twin."""
    for context in contexts:
        for name in names:
            if name != "llama":
                row = {"what": "prefill", "model": name, "context": context, "batch": 1}
                yield from results.add(row, partial(prefill_row, name, config, context, results))


@torch.no_grad()
def prefill_row(name, config, context, results) -> dict:
    """Seconds of `next_token`; compiled on a GPU, the twin by its fastest attention."""
    contestants.forget()
    device = results.device
    dtype = compute_type(device)
    model = contestants.build(name, config, device).to(dtype).eval()
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.vocab_size, (1, context), generator=draw).to(device)
    way = None
    if name == "twin":
        shape = 1, config.heads, context, config.dim // config.heads
        way = next(iter(contestants.softmax_speeds(shape, device, dtype)))
    eager, _ = model.next_token(ids)
    if device.type == "cuda":
        for block in model.model["layers"]:
            block.compile(dynamic=False)
    with contestants.softmax_by(way):
        logits, _ = model.next_token(ids)
        before = forget_peak(device)
        each = seconds(lambda: model.next_token(ids), device)
    return {
        "ms": 1e3 * each,
        "tokens_per_s": context / each,
        "activation_bytes": None if before is None else peak_bytes(device) - before,
        "peak_bytes": peak_bytes(device),
        "softmax": way.name if way else None,
        "errors": {"compiled": ((logits - eager).norm() / eager.norm()).item()},
    }
