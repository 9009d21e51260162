"""The plan's memory against what a GPU counts: python -m transnormer_edu.parallel.measure

Each run does two updates of a model that `divide` made, on a mesh of one, and asks PyTorch for the
most bytes that tensors held in the second: in its forward, its backward and its update.
"""

import datetime
import json
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer

from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.parallel.memory import Job, moments
from transnormer_edu.parallel.mesh import MeshShape, make_mesh
from transnormer_edu.parallel.model import divide
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import make_optimizer

# Preset, texts, tokens in each, recomputing.
RUNS = [
    ("385m", 4, 8192, False),
    ("1b", 1, 16384, False),
    ("3b", 1, 32768, True),
    ("385m", 1, 131072, True),
]


def main(out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("plan.json")):
    """Measure all runs and write them as JSON; needs a CUDA GPU of 80 GB."""
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    mesh = make_mesh(MeshShape(), "cuda")
    about = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    runs = []
    for preset, rows, context, recompute in RUNS:
        job = Job(TransNormerConfig.preset(preset), MeshShape(), rows, context, recompute)
        run = {"preset": preset, "rows": rows, "context": context, "recompute": recompute}
        runs.append(run | compare(job, mesh))
        typer.echo(json.dumps(runs[-1]))
        out.write_text(json.dumps(about | {"runs": runs}, indent=1) + "\n")
    dist.destroy_process_group()


def compare(job: Job, mesh) -> dict:
    """Bytes by moment, planned and measured, and the ratio of the two largest."""
    measured = measure(job, mesh)
    torch.cuda.empty_cache()
    planned = {moment: sum(parts.values()) for moment, parts in moments(job).items()}
    ratio = max(planned.values()) / max(measured.values())
    return {"planned": planned, "measured": measured, "ratio": round(ratio, 4)}


def measure(job: Job, mesh) -> dict[str, int]:
    """Most bytes held in the forward, the backward and the update."""
    with torch.device("cuda"):
        model = TransNormerLLM(job.config).cuda()
    model = divide(model, mesh, recompute=job.recompute, bf16=True)
    optimizer = make_optimizer(model.model, TrainSettings())
    ids = torch.randint(3, job.config.vocab_size, (job.rows, job.context), device="cuda")
    for _ in range(2):
        found = {}
        optimizer.zero_grad()
        torch.cuda.reset_peak_memory_stats()
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
