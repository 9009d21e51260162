"""`transnormer-edu train` in a job of torchrun: the same command, on a mesh of processes."""

from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist
from torch import nn

from transnormer_edu.job import may_restart, say
from transnormer_edu.parallel.checkpoints import newest, notes_of
from transnormer_edu.parallel.mesh import MeshShape
from transnormer_edu.parallel.processes import start, stop
from transnormer_edu.parallel.train import ParallelTrainer, prepare, resume
from transnormer_edu.run_folder import is_run
from transnormer_edu.settings import TrainSettings


@dataclass(frozen=True)
class Mesh:
    """How `train` begins a run, and goes on with one, on the processes of this job.

    choices: `exchange` and `recompute` of `divide`.
    """

    shape: MeshShape
    choices: dict = field(default_factory=dict)

    @classmethod
    def meet(cls, device: str, axes: dict, choices: dict) -> "Mesh":
        """Find the other processes. ValueError for axes that do not fit their number."""
        start(device)
        shape = MeshShape.of(dist.get_world_size(), **axes)
        say(f"data {shape.data} x sequence {shape.sequence} x tensor {shape.tensor} processes")
        return cls(shape, choices)

    def is_run(self, folder: Path) -> bool:
        """Whether a run, of many processes or of one, can go on from here."""
        return newest(folder) is not None or is_run(folder)

    def new(self, model: nn.Module, tokenizer, corpus, settings: TrainSettings, folder: Path):
        """A run that begins in `folder`; where torchrun restarts, the same run goes on there."""
        whole = prepare(model, self.shape, settings, **self.choices)
        trainer = ParallelTrainer(whole, tokenizer, corpus, settings, folder)
        path = newest(folder) if may_restart() else None
        if path is None or not _same_run(notes_of(path)["about"], trainer.about()):
            return trainer.begin()
        say(f"goes on after step {notes_of(path)['step']}")
        return resume(folder, self.shape, corpus, **self.choices)

    def resume(self, folder: Path, steps: int | None):
        """The run in `folder`, which may have had another mesh."""
        return resume(folder, self.shape, steps=steps, **self.choices)

    def end(self, trainer: ParallelTrainer, prompt: str) -> None:
        """Take leave. The model is in pieces and may be large: it does not write here."""
        stop()


def _same_run(one: dict, other: dict) -> bool:
    """Whether two runs do the same steps: same model, settings, corpus and tokenizer."""
    return all(one[key] == other[key] for key in other if key not in ("step", "held_out"))
