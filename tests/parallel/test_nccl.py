"""Every mesh of several GPUs gives the losses of one, through NCCL and with the kernels."""

import json

import pytest
import torch

from tests.parallel.start import torchrun

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPUS < 2, reason="needs several GPUs")]

# A loss is near 4. float32 rounds at 6e-8 of that; sums in another order over 2,000 tokens, and
# AdamW, which divides a small gradient by its own size, make it a hundred times as much at most.
# bfloat16 rounds at 4e-3: of each number, in another place on another mesh; a mean of 2,000 losses
# averages most of that out.
BOUND = {"fp32": 1e-4, "bf16": 1e-2}


@pytest.mark.parametrize("world", [world for world in (2, 4) if world <= GPUS] or [2])
def test_many_gpus_are_one(tmp_path, world):
    torchrun(world, "tests/parallel/nccl.py", tmp_path / "losses.json", seconds=400)
    found = json.loads((tmp_path / "losses.json").read_text())
    alone = {name: torch.tensor(losses) for name, losses in found["alone"].items()}
    assert (alone["fp32"][0] - alone["fp32"][-1]).abs() > 0.05  # something is learned
    gaps = {}
    for mesh in found["meshes"]:
        losses, expected = torch.tensor(mesh.pop("losses")), alone[mesh["precision"]]
        gaps[json.dumps(mesh)] = gap = float((losses - expected).abs().max())
        print(f"{gap:.1e}  {mesh}")
    for mesh, gap in gaps.items():
        assert gap < BOUND[json.loads(mesh)["precision"]], mesh
