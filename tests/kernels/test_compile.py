"""Every configuration that can be chosen is compiled for GPUs that are not here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def compiled(arch, tmp_path, *options):
    """The report of resources.py, in a process where Triton does not interpret."""
    kernels = str(HERE.parents[1] / "kernels")
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": kernels}
    command = [sys.executable, str(HERE / "resources.py"), str(arch), *options]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def report(rows):
    for row in rows:
        print(json.dumps(row))
    unfit = [row for row in rows if not row["fits"]]
    assert not unfit, f"spills, or more shared memory than the chip has: {unfit}"
    kernels = {row["kernel"] for row in rows}
    assert {"scan", "segment_state", "join_states", "v1", "decode", "forward_kernel"} <= kernels
    assert {"backward_kernel", "loss", "projection", "row", "product"} <= kernels


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_no_spills_and_enough_shared_memory(arch, tmp_path):
    """The largest head of every row of the tables."""
    report(compiled(arch, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_all_pairs_of_head_sizes(arch, tmp_path):
    report(compiled(arch, tmp_path, "--all"))
