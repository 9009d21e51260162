"""A few processes on this computer, started from a notebook or a script.

    def who(rank, world):
        import torch, torch.distributed as dist
        x = torch.tensor([rank + 1])
        dist.all_reduce(x)
        return x.item()

    run(who, processes=2)        [3, 3]: what each process returned

The function travels by value (cloudpickle), so it may stand in a notebook. The processes talk
through PyTorch's gloo, which needs no GPU.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from transnormer_edu import check


def run(function, *args, processes: int = 2, seconds: float = 120.0) -> list:
    """[function(rank, world, *args) for each process], where all of them run at once.

    Inside, torch.distributed is ready for use. Errors: RuntimeError with the end of what a process
    said, where one fails; TimeoutError after `seconds`. Either way none is left behind.
    """
    import cloudpickle

    check.whole("processes", processes)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "task").write_bytes(cloudpickle.dumps((function, args)))
        children = [_start(folder, rank, processes) for rank in range(processes)]
        try:
            _wait(children, folder, time.monotonic() + seconds, seconds)
        finally:
            for child in children:
                child.kill()
                child.wait()
        return [pickle.loads((folder / f"result{r}").read_bytes()) for r in range(processes)]


def _start(folder: Path, rank: int, world: int) -> subprocess.Popen:
    path = os.pathsep.join(sys.path)
    own = {"PYTHONPATH": path, "RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    with open(folder / f"said{rank}", "wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "transnormer_edu.parallel.demo", str(folder)],
            env=os.environ | own, stdout=said, stderr=said,
        )  # fmt: skip


def _wait(children, folder, end, seconds) -> None:
    """Until all are done, or one has failed: the others would wait for it for ever."""
    while any(child.poll() is None for child in children):
        if any(child.poll() for child in children):
            break
        if time.monotonic() > end:
            raise TimeoutError(f"the processes were not done after {seconds:g} s")
        time.sleep(0.02)
    for rank, child in enumerate(children):
        if child.poll():
            said = (folder / f"said{rank}").read_text(errors="replace")
            raise RuntimeError(f"process {rank} failed: {said[-2000:]}")


def main(folder: str) -> None:
    """One of the processes."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(str(Path(folder) / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    function, args = pickle.loads((Path(folder) / "task").read_bytes())
    result = function(rank, world, *args)
    (Path(folder) / f"result{rank}").write_bytes(pickle.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
