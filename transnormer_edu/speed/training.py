"""Training: tokens per second of whole updates, over the context, with equal tokens per update.

    share of the matrix products' rate = 6 N tokens/s / (2 n^3 / seconds of an n x n product)

6 N: every weight takes part in one multiplication and one addition per token, and in twice as many
in the backward (attention itself is not counted). An update is that of `FastRun`: forward, loss,
backward, clipping, AdamW; on a GPU in bf16, recorded once as a CUDA graph. Blocks can be compiled.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.fast_run import BEFORE_RECORDING, FastRun
from transnormer_edu.settings import TrainSettings
from transnormer_edu.speed import contestants
from transnormer_edu.speed.clock import compute_type, forget_peak, peak_bytes, typical
from transnormer_edu.speed.results import Results

CONTEXTS = {"cuda": (2048, 8192, 32768, 65536), "cpu": (256, 512, 1024, 2048)}
TOKENS = {"cuda": 65536, "cpu": 4096}  # per update
NO_MEMORY = torch.OutOfMemoryError.__name__
WARM, TIMED = BEFORE_RECORDING + 1, 5  # updates


def rows(
    results: Results, config: TransNormerConfig, names: tuple[str, ...], contexts, tokens, parts,
    compiled: bool = False,
) -> Iterator[str]:  # fmt: skip
    """Every context for every model: at `parts` passes for an update, more where memory ends.

    A softmax model is measured with its fastest attention of that shape, found by measuring.
    Errors: ValueError where no context divides the tokens of a pass.
    """
    if all(tokens % (context * parts) for context in contexts):
        raise ValueError(
            f"{tokens} tokens in {parts} parts: no context divides that; got {contexts}, expected "
            "such as are a whole number of times in it"
        )
    for context, name in product(contexts, names):
        cut = parts
        while tokens % (context * cut) == 0:
            row = {"what": "train", "model": name, "context": context}
            row |= {"batch": tokens // context // cut, "parts": cut}
            yield from results.add(row, partial(train_row, name, config, row, results, compiled))
            if NO_MEMORY not in results.skipped(row):
                break
            cut *= 2


def train_row(name, config, row, results, compiled) -> dict:
    """What is measured for a row of one model, by the attention that is fastest for it."""
    device = results.device
    ways = [None]
    if name != "ours":
        contestants.forget()
        shape = row["batch"], config.heads, row["context"], config.dim // config.heads
        ways = list(contestants.softmax_speeds(shape, device, compute_type(device), training=True))
    found, way = _by_the_first_that_runs(
        ways, partial(measure, name, config, row, device, compiled)
    )
    used = 6 * found["parameters"] * found["tokens_per_s"]
    found["of_matmul_rate"] = used / results.all["matmul_flop_per_s"]
    return found | ({"softmax": way.name} if way else {})


def _by_the_first_that_runs(ways, measured) -> tuple:
    """A back end may refuse to be compiled or recorded: then the next; but not without memory."""
    for left, way in zip(reversed(range(len(ways))), ways, strict=True):
        try:
            with contestants.softmax_by(way):
                return measured(), way
        except Exception as error:
            if not left or NO_MEMORY in (type(error).__name__, type(error.__context__).__name__):
                raise
    raise RuntimeError("no softmax attention runs at this shape")


def measure(name, config, row, device, compiled) -> dict:
    """Seconds of an update and what follows from it; memory that the forward pass keeps."""
    contestants.forget()
    model = contestants.build(name, config, device)
    batch, context, parts = row["batch"], row["context"], row["parts"]
    settings = TrainSettings(
        steps=WARM + TIMED, batch_size=batch, context=context, accumulate=parts, warmup=0,
        learning_rate=1e-4, device=str(device),
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    windows = (settings.steps, batch * parts, context)
    ids = torch.randint(3, config.vocab_size, windows, generator=draw, dtype=torch.int32)
    run = FastRun(model, ids, settings, compiled=compiled)
    eager = run.held_out_loss(ids[0])
    run.run(1)
    run.optimizer.zero_grad(set_to_none=True)
    before = forget_peak(device)
    run.run(2)
    kept = peak_bytes(device)
    run.run(WARM)
    timed = range(WARM + 1, settings.steps + 1)
    ms = 1e3 * typical((run.run(step) for step in timed), device)
    return {
        "compiled": compiled,
        "tokens_per_update": settings.tokens_per_step,
        "parameters": contestants.parameters(model),
        "ms": ms,
        "tokens_per_s": 1e3 * settings.tokens_per_step / ms,
        "activation_bytes": None if before is None else kept - before,
        "peak_bytes": peak_bytes(device),
        "loss_gap": abs(float(run.losses[0]) - eager),
    }
