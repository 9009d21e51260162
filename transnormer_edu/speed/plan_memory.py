"""The plan's memory against what a GPU counts:

    python -m transnormer_edu.speed.plan_memory build/plan.json

Each run does two updates of a model that `divide` made, on a mesh of one, and asks PyTorch for the
most bytes that tensors held in the second: in its forward, its backward and its update.

    {"origin": {device, date, torch, triton, commit, …}, "runs": [{preset, …, measured, ratio}]}
"""

import json
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from transnormer_edu import TransNormerConfig
from transnormer_edu.atomic import write_text
from transnormer_edu.parallel import MeshShape, divide, make_mesh
from transnormer_edu.parallel.memory import Job, moments
from transnormer_edu.parallel.processes import start, stop
from transnormer_edu.settings import TrainSettings
from transnormer_edu.speed import contestants
from transnormer_edu.speed.results import origin
from transnormer_edu.train import make_optimizer

# Preset, texts, tokens in each, recomputing.
RUNS = [
    ("385m", 4, 8192, False),
    ("1b", 1, 16384, False),
    ("385m", 1, 131072, True),
    ("3b", 1, 32768, True),
]


def main(
    out: Annotated[Path, typer.Argument(help="File of the runs, JSON; written anew.")],
    seconds: Annotated[float, typer.Option(help="Begin no run after so many.")] = 60,
    commit: Annotated[
        str | None, typer.Option(help="Of this code, where git does not know.")
    ] = None,
):
    """All runs, as JSON; needs a CUDA GPU of 80 GB."""
    begin = time.monotonic()
    device = start("cuda")
    mesh = make_mesh(MeshShape(), device.type)
    found = {"origin": origin(device, commit), "runs": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    for preset, rows, context, recompute in RUNS:
        since = time.monotonic() - begin
        said = f"{since:3.0f} s  {preset} {rows} x {context}{', recomputing' * recompute}: "
        if since > seconds:
            typer.echo(f"{said}time is up")
            continue
        job = Job(TransNormerConfig.preset(preset), MeshShape(), rows, context, recompute)
        run = {"preset": preset, "rows": rows, "context": context, "recompute": recompute}
        run |= compare(job, mesh)
        found["runs"].append(run)
        write_text(out, json.dumps(found, indent=1) + "\n")
        typer.echo(f"{said}planned / measured {run['ratio']:.4f}")
    stop()


def compare(job: Job, mesh) -> dict:
    """Bytes by moment, planned and measured, and the ratio of the two largest."""
    measured = measure(job, mesh)
    planned = {moment: sum(parts.values()) for moment, parts in moments(job).items()}
    ratio = max(planned.values()) / max(measured.values())
    return {"planned": planned, "measured": measured, "ratio": round(ratio, 4)}


def measure(job: Job, mesh) -> dict[str, int]:
    """Most bytes held in the forward, the backward and the update."""
    contestants.forget()
    model = contestants.build("ours", job.config, torch.device("cuda"))
    model = divide(model, mesh, recompute=job.recompute, bf16=True)
    optimizer = make_optimizer(model.model, TrainSettings())
    ids = torch.randint(3, job.config.vocab_size, (job.rows, job.context), device="cuda")
    for _ in range(2):
        found = {}
        optimizer.zero_grad()
        _most()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(ids, labels=ids)
        found["forward"] = _most()
        loss.backward()
        found["backward"] = _most()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found["update"] = _most()
    return found


def _most() -> int:
    """Most bytes held since the last call."""
    torch.cuda.synchronize()
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most


if __name__ == "__main__":
    typer.run(main)
