"""Processes meet although the store still holds the address of one that is dead."""

import os
import socket
import subprocess
import sys
from contextlib import suppress

import torch.distributed as dist

from tests.parallel.start import ENVIRONMENT, ROOT
from transnormer_edu.parallel.processes import PORT

MEET = """
import torch, torch.distributed as dist
from transnormer_edu.parallel.processes import start, stop
start("cpu")
x = torch.tensor(dist.get_rank() + 1)
dist.all_reduce(x)
stop()
print(int(x))
"""


def test_a_dead_process_is_not_waited_for():
    """As after a restart: torchrun's store lives on, the port in it is of an earlier life."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with socket.socket() as nobody:  # a port where nobody listens
        nobody.bind(("localhost", 0))
        store.set(PORT, str(nobody.getsockname()[1]))
        job = {
            "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }  # fmt: skip
        late = _start(job | {"RANK": "1"})
        with suppress(subprocess.TimeoutExpired):
            late.wait(timeout=6)  # it tries the dead port
        assert late.poll() is None
        said = [child.communicate(timeout=300)[0] for child in (_start(job | {"RANK": "0"}), late)]
    assert [text.strip() for text in said] == ["3", "3"]


def _start(job):
    return subprocess.Popen(
        [sys.executable, "-c", MEET], env=os.environ | ENVIRONMENT | job, cwd=ROOT,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
