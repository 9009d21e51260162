"""What FSDP costs where it shares nothing: whole updates on one device, with it and without.

    python -m transnormer_edu.speed.wrapping build/wrapping.json

    cost = median ms of an update with it / median ms without - 1

Both models are there at once and take turns, so that a device that grows warm slows both. An update
is that of `Trainer`: bf16 autocast on a GPU, loss, backward, clipping, AdamW.
"""

from collections.abc import Callable
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

ROUNDS, TIMES = 7, 2  # turns of each, updates in a turn


def measure(config, batch: int, context: int, device: torch.device, **choices) -> dict:
    """Milliseconds of an update without and with FSDP, their ratio, and how the losses differ.

    choices: `recompute` of `divide`, for the one with FSDP alone.
    """
    settings = TrainSettings(batch_size=batch, context=context, device=str(device))
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.vocab_size, (batch, context), generator=draw).to(device)
    mesh, bf16 = make_mesh(MeshShape(), device.type), settings.uses_bf16()
    plain = contestants.build("ours", config, device)
    wrapped = divide(contestants.build("ours", config, device), mesh, bf16=bf16, **choices)
    updates = {"plain": _update(plain, ids, settings), "fsdp": _update(wrapped, ids, settings)}
    first = [float(update()) for update in updates.values()]
    forget_peak(device)
    turns = [
        {name: seconds(update, device, 1, TIMES) for name, update in updates.items()}
        for _ in range(ROUNDS)
    ]
    ms = {name: 1e3 * median(turn[name] for turn in turns) for name in updates}
    return {
        "ms": ms["plain"],
        "fsdp_ms": ms["fsdp"],
        "cost": ms["fsdp"] / ms["plain"] - 1,
        "turns_ms": [{name: 1e3 * s for name, s in turn.items()} for turn in turns],
        "tokens_per_s": 1e3 * batch * context / ms["plain"],
        "peak_bytes": peak_bytes(device),
        "loss_gap": abs(first[0] - first[1]),
    }


def _update(model: nn.Module, ids, settings: TrainSettings) -> Callable:
    optimizer, device = make_optimizer(model, settings), ids.device.type

    def update():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=settings.uses_bf16()):
            loss = model(ids, labels=ids)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        return loss.detach()

    return update


def main(
    out: Annotated[Path, typer.Argument(help="File of the rows, JSON; rows in it are kept.")],
    size: str = "385m",
    batch: Annotated[str, typer.Option(help="Texts; with commas, one row each.")] = "8,16",
    context: int = 2048,
    device: str = "auto",
    seconds: float = 60,
    commit: str | None = None,
):
    """FSDP on one device, and none."""
    device = start(device)
    results = Results(out, device, size, seconds, commit)
    config = contestants.size(size)
    for rows in map(int, batch.split(",")):
        row = {"what": "fsdp", "model": "ours", "context": context, "batch": rows}
        for line in results.add(row, lambda rows=rows: measure(config, rows, context, device)):
            typer.echo(line)
        contestants.forget()
    stop()


if __name__ == "__main__":
    typer.run(main)
