"""What FSDP costs where it shares nothing: whole updates on one device, with it and without.

    python -m transnormer_edu.speed.wrapping build/wrapping.json

    cost = median ms of an update with it / median ms without - 1

Both models are there at once and take turns, so that a device that grows warm slows both. An update
is that of `Trainer`: bf16 autocast on a GPU, loss, backward, clipping, a look at both numbers (for
which a GPU has to come to rest), AdamW. FSDP keeps the host busy for a while at each block; that
shows where the GPU is done with a block sooner, so with few tokens.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from torch import nn

from transnormer_edu.parallel import MeshShape, divide, make_mesh
from transnormer_edu.parallel.processes import start, stop
from transnormer_edu.settings import TrainSettings
from transnormer_edu.speed import contestants
from transnormer_edu.speed.clock import forget_peak, peak_bytes, seconds
from transnormer_edu.speed.results import Results
from transnormer_edu.train import make_optimizer

ROUNDS, TIMES = 7, 3  # turns of each, updates in a turn


def measure(
    config, batch: int, context: int, device: torch.device, say=print, compiled: bool = False
) -> dict:
    """Milliseconds of an update without and with FSDP, what it costs, how far the losses differ.

    say: told what is done, while it is.  compiled: torch.compile for each block of both
    """
    settings = TrainSettings(batch_size=batch, context=context, device=str(device))
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.vocab_size, (batch, context), generator=draw).to(device)
    mesh, bf16 = make_mesh(MeshShape(), device.type), settings.uses_bf16()
    plain, fsdp = (contestants.build("ours", config, device) for _ in range(2))
    if compiled:
        for block in plain.model["layers"]:
            block.compile(dynamic=False)
    fsdp = divide(fsdp, mesh, bf16=bf16, compiled=compiled)
    updates = {"plain": _update(plain, ids, settings), "fsdp": _update(fsdp, ids, settings)}
    say("the models are there")
    first = {}
    for name, update in updates.items():
        first[name] = update()
        say(f"first update, {name}: loss {first[name]:.4f}")
    forget_peak(device)
    turns = []
    for _ in range(ROUNDS):
        turns.append({name: 1e3 * seconds(up, device, 1, TIMES) for name, up in updates.items()})
        say("  ".join(f"{name} {ms:.2f} ms" for name, ms in turns[-1].items()))
    ms = {name: median(turn[name] for turn in turns) for name in updates}
    return {
        "ms": ms["plain"],
        "fsdp_ms": ms["fsdp"],
        "cost": ms["fsdp"] / ms["plain"] - 1,
        "turns_ms": turns,
        "tokens_per_s": 1e3 * batch * context / ms["plain"],
        "peak_bytes": peak_bytes(device),
        "loss_gap": abs(first["plain"] - first["fsdp"]),
    }


def _update(model: nn.Module, ids, settings: TrainSettings) -> Callable[[], float]:
    optimizer, device = make_optimizer(model, settings), ids.device.type

    def update():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=settings.uses_bf16()):
            loss = model(ids, labels=ids)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        loss, _ = float(loss.detach()), float(norm)
        optimizer.step()
        return loss

    return update


def main(
    out: Annotated[Path, typer.Argument(help="File of the rows, JSON; rows in it are kept.")],
    size: str = "385m",
    batch: Annotated[str, typer.Option(help="Texts; with commas, one row each.")] = "8,32",
    context: int = 2048,
    compiled: Annotated[bool, typer.Option(help="torch.compile for each block.")] = False,
    device: str = "auto",
    seconds: float = 60,
    commit: str | None = None,
):
    """FSDP on one device, and none."""
    begin = time.monotonic()

    def say(text):
        typer.echo(f"{time.monotonic() - begin:5.1f} s  {text}")

    device = start(device)
    say("a job of one process")
    results = Results(out, device, size, seconds, commit)
    say(f"copy and matrix rates of {results.all['origin']['device']}")
    config = contestants.size(size)
    what = "fsdp, compiled" if compiled else "fsdp"
    for rows in map(int, batch.split(",")):
        row = {"what": what, "model": "ours", "context": context, "batch": rows}
        run = partial(measure, config, rows, context, device, say, compiled)
        for line in results.add(row, run):
            say(line)
        contestants.forget()
    stop()


if __name__ == "__main__":
    typer.run(main)
