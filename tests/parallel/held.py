"""Run by torchrun with 4 processes: bytes really held and sent, on meshes of them, in bfloat16.

Writes a list, per mesh and process, as JSON.
"""

import json
import sys

import torch
import torch.distributed as dist

from tests import models
from transnormer_edu.parallel import MeshShape, MessageCounter, divide, make_mesh
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import make_optimizer

SIZES = dict(
    vocab_size=64, dim=16, layers=3, heads=4, hidden_dim=32, glu_dim=24, lrpe_layers=(0, 2)
)  # fmt: skip
ROWS, CONTEXT = 4, 24
CASES = [
    (axes, recompute, gate)
    for axes in ((4, 1, 1), (1, 4, 1), (1, 1, 4), (2, 2, 1), (1, 2, 2), (2, 1, 2))
    for recompute, gate in ((False, "full"), (True, 8))
]


def update(axes, recompute, gate):
    """One update: bytes of weights, gradients and moments of this process, and what it sent."""
    mesh = make_mesh(MeshShape(*axes))
    whole = divide(models.linear(**SIZES, gate=gate).float(), mesh, recompute=recompute, bf16=True)
    optimizer = make_optimizer(whole.model, TrainSettings(device="cpu"))
    own = ROWS // axes[0]
    ids = models.tokens(ROWS, CONTEXT)[:own]
    with MessageCounter() as sent:
        with torch.autocast("cpu", torch.bfloat16):
            loss = whole(ids, labels=ids)
        loss.backward()
    optimizer.step()
    moments = [x for s in optimizer.state.values() for x in s.values() if x.ndim]
    return {
        "weights": held(whole.parameters()),
        "gradients": held(p.grad for p in whole.parameters()),
        "optimiser": held(moments),
        "sent": dict(sent.bytes),
    }


def held(tensors):
    """Bytes in this process; what FSDP fills up with is there, but nobody's."""
    return sum(x.to_local().nbytes for x in tensors)


def main(path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = []
    for case in CASES:
        everyone = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, update(*case))
        found.append(everyone)
    if dist.get_rank() == 0:
        with open(path, "w") as file:
            json.dump(found, file)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
