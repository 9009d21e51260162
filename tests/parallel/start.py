"""Starting jobs of several processes for the tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *sys.path]),
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
}


def torchrun(processes, script, *arguments, seconds=600, module=False, restarts=0, check=True):
    """Run a script (or module) in so many processes; fails with what it said."""
    how = ["--module"] if module else []
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(processes), "--max-restarts", str(restarts), *how, str(script), *map(str, arguments),
    ]  # fmt: skip
    job = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        said, complained = job.communicate(timeout=seconds)
    except BaseException:
        os.killpg(job.pid, signal.SIGKILL)  # the processes that torchrun started, too
        raise
    done = subprocess.CompletedProcess(command, job.returncode, said, complained)
    assert not check or done.returncode == 0, said[-2000:] + complained[-4000:]
    return done
