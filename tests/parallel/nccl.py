"""Run by torchrun, a GPU for each process: every mesh of them through NCCL, beside one GPU.

Writes per mesh the losses of each process, in float32 and in bfloat16, and those of one GPU alone.
"""

import json
import sys
from dataclasses import asdict
from functools import cache

import torch
import torch.distributed as dist

from tests import models
from tests.parallel.equal import labels_of, runs
from transnormer_edu.parallel import divide, make_mesh
from transnormer_edu.parallel.processes import start, stop
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import make_optimizer

# Heads of 16 features: the kernels take them. Long enough for several of their tiles in a stretch.
SIZES = dict(dim=64, layers=3, heads=4, hidden_dim=64, glu_dim=48, lrpe_layers=(0, 2))
ROWS, TOKENS, STEPS = 4, 512, 5
PRECISIONS = ("fp32", "bf16")


def losses(model, precision, rows=slice(None)):
    """Of a few updates; the last is after all others, so gradients count too."""
    settings = TrainSettings(learning_rate=1e-3, precision=precision, device="cuda")
    optimizer, found = make_optimizer(model, settings), []
    for step in range(STEPS):
        ids = models.tokens(ROWS, TOKENS, seed=step).cuda()
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=settings.uses_bf16()):
            loss = model(ids[rows], labels=labels_of(ids)[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        found.append(loss.item())
    return found


def make():
    return models.linear(torch.float32, **SIZES).cuda()


@cache
def mesh_of(shape):
    """Once: each has its own connections."""
    return make_mesh(shape, "cuda")


def on_mesh(shape, exchange, precision):
    mesh = mesh_of(shape)
    size = ROWS // shape.data
    first = mesh.get_local_rank("data") * size
    model = divide(make(), mesh, exchange=exchange, bf16=precision == "bf16")
    return losses(model, precision, slice(first, first + size))


def main(path):
    start("cuda")
    found = {"alone": {precision: losses(make(), precision) for precision in PRECISIONS}}
    found["meshes"] = []
    plain = [run for run in runs(dist.get_world_size(), every_case=False) if run[1] == "plain"]
    for shape, _, exchange in plain:
        for precision in PRECISIONS:
            everyone = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, on_mesh(shape, exchange, precision))
            run = asdict(shape) | {"exchange": exchange, "precision": precision}
            found["meshes"].append(run | {"losses": everyone})
    if dist.get_rank() == 0:
        with open(path, "w") as file:
            json.dump(found, file)
    stop()


if __name__ == "__main__":
    main(sys.argv[1])
