"""Run by torchrun with 2 processes and one restart: a run that is killed, one that changes mesh."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.parallel.setting import BYTES, QUICK, new_model
from transnormer_edu.data import load_corpus
from transnormer_edu.parallel.checkpoints import newest
from transnormer_edu.parallel.mesh import MeshShape
from transnormer_edu.parallel.processes import start, stop
from transnormer_edu.parallel.train import ParallelTrainer, prepare, resume


def new_run(corpus, folder, shape, **choices):
    whole = prepare(new_model(), shape, QUICK, **choices)
    return ParallelTrainer(whole, BYTES, corpus, QUICK, folder).begin()


def killed(corpus, folder, shape):
    """Rank 1 dies in the middle of step 6 (its gradients are there, no weight has changed yet)."""
    if newest(folder) is not None:
        trainer = resume(folder, shape, corpus)
        if dist.get_rank() == 0:
            (folder / "went_on_at").write_text(str(trainer.step))
    else:
        trainer = new_run(corpus, folder, shape)

    def die(*_):
        first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first_life and trainer.step == 5 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.optimizer.register_step_pre_hook(die)
    trainer.run(progress=False)


def moved(corpus, folder, before, after):
    """Ends after step 4 on one mesh and goes on with another."""
    new_run(corpus, folder, before, recompute=True).run(progress=False, until=4)
    resume(folder, after, corpus).run(progress=False)


def main(book, folder):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    start("cpu")
    corpus, folder = load_corpus(book), Path(folder)
    killed(corpus, folder / "killed", MeshShape(data=2))
    moved(corpus, folder / "moved", MeshShape(sequence=2), MeshShape(tensor=2))
    stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
