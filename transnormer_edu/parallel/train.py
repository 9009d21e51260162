"""The training loop of train.py on many processes.

Every process runs the same loop; each reads its own rows of a batch. The loss, the gradient's norm
and the scores are those of one process; process 0 prints and writes logs and weights, and all of
them write the checkpoints (checkpoints.py). A run that was killed goes on to the same losses.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from transnormer_edu.batches import Batches
from transnormer_edu.cross_entropy import IGNORED_LABEL
from transnormer_edu.data import load_corpus
from transnormer_edu.evaluate import Score, cut_windows
from transnormer_edu.parallel.checkpoints import (
    Checkpoints,
    newest,
    notes_of,
    restore,
    store,
    sweep,
    whole_weights,
)
from transnormer_edu.parallel.mesh import MeshShape, make_mesh
from transnormer_edu.parallel.model import ParallelModel, divide
from transnormer_edu.parallel.processes import is_first, on_first
from transnormer_edu.pretrained import MODELS
from transnormer_edu.released_config import config_from_json
from transnormer_edu.released_tokenizers import load_tokenizer
from transnormer_edu.run_folder import CHECKPOINT, RunFolder, is_run, save_model
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import MOST_ROWS, Trainer
from transnormer_edu.train import resume as resume_alone
from transnormer_edu.undrawn import shapes_alone


class OwnRows:
    """Of each batch the rows of one data rank."""

    def __init__(self, batches: Batches, rank: int, ranks: int):
        size = batches.batch_size // ranks
        self.batches, self.rows = batches, slice(rank * size, (rank + 1) * size)

    def __getitem__(self, i: int):
        return self.batches[i][self.rows]


class SharedFolder(RunFolder):
    """A run's folder in which process 0 writes; an error there is raised in all."""

    def log(self, step, seconds):
        on_first(super().log, step, seconds)

    def log_looks(self, looks, about):
        on_first(super().log_looks, looks, about)

    def save_model(self, name, model, tokenizer, about):
        """All weights come together in process 0, in the released order."""
        tensors = whole_weights(model.model)
        on_first(_write_weights, self.path / name, model.model, tensors, tokenizer, about)


class ParallelTrainer(Trainer):
    """A `Trainer` of a divided model: made, iterated and run by all processes alike.

    settings.batch_size counts the rows of all data ranks. Errors as in `Trainer`, and ValueError
    where the mesh cannot share the batch or the context.
    """

    def __init__(self, model: ParallelModel, tokenizer, corpus, settings, folder=None):
        model.shape.check_batch(settings.batch_size, settings.context)
        super().__init__(model, tokenizer, corpus, settings)
        axis = model.mesh["data"]
        self.batches = OwnRows(self.batches, axis.get_local_rank(), axis.size())
        if folder is not None:
            self.folder, self.checkpoints = SharedFolder(folder), Checkpoints(folder)

    def begin(self) -> "ParallelTrainer":
        """Start the run's folder. FileExistsError where it already holds a run."""
        on_first(_begin, self.folder.path, self.about(), self.tokenizer)
        self.save()
        self.checkpoints.wait()  # a run can go on from its first moment
        return self

    def run(self, on_step=None, progress=True, until=None):
        """As in `Trainer`; process 0 shows the bar, and Ctrl-C goes back to the last checkpoint."""
        score = super().run(on_step, progress and is_first(), until)
        if self.folder is not None:
            self.checkpoints.wait()
        return score

    @torch.no_grad()
    def held_out_score(self, max_windows: int | None = None) -> Score:
        """As in `Trainer`, each data rank reading other windows."""
        context, ranks = self.settings.context, self.model.shape.data
        row = torch.tensor(
            [self.tokenizer.bos_id, *self.tokenizer.encode(self.corpus.held_out_text)]
        )
        inputs, targets = cut_windows(row, context, context, max_windows)
        scored = targets[targets != IGNORED_LABEL]
        lacking = -len(inputs) % ranks  # windows without a label, so that all have as many
        inputs = torch.cat([inputs, inputs[:1].expand(lacking, -1)])
        targets = torch.cat(
            [targets, torch.full_like(targets[:1], IGNORED_LABEL).expand(lacking, -1)]
        )
        own = self.model.mesh["data"].get_local_rank()
        nats = self._nats(inputs[own::ranks], targets[own::ranks])
        return Score(nats, len(scored), int(self.tokenizer.byte_counts[scored].sum()))

    def _nats(self, inputs, targets) -> float:
        self.model.eval()
        rows = min(MOST_ROWS, self.settings.batch_size)
        size, nats = max(1, rows // self.model.shape.data), 0.0
        for ids, goal in zip(inputs.split(size), targets.split(size), strict=True):
            with self.bf16():
                nats += self.model.nats(ids.to(self.device), goal.to(self.device))
        self.model.train()
        return nats

    def save(self) -> None:
        """Begin a checkpoint: everything the next step depends on."""
        if self.folder is None:
            return
        self.checkpoints.save(self.model.model, self.optimizer, self.step, notes_on(self))

    def _save_interrupted(self) -> None:
        """The processes may stand at different steps: the checkpoint of before has to do."""

    def restore(self, path: Path) -> None:
        """Inverse of `save`, whatever the mesh."""
        notes = notes_of(path)
        restore(path, self.model.model, self.optimizer)
        self.step, self.looks, self.seconds = notes["step"], notes["looks"], notes["seconds"]
        self.best = self.best if notes["best"] is None else notes["best"]
        self._since = (self.step, self.seconds)
        self.checkpoints.last = path


def notes_on(trainer: Trainer) -> dict:
    """What the next step depends on, beside weights and moments; the batches follow from `step`."""
    return {
        "about": trainer.about() | {"source": trainer.corpus.source},
        "step": trainer.step, "looks": trainer.looks, "seconds": trainer.seconds,
        "best": trainer.best if trainer.looks else None,
    }  # fmt: skip


def from_one_process(folder: str | Path) -> None:
    """Turn the checkpoint.pt of a run of one process into a checkpoint that any mesh reads."""
    trainer = resume_alone(folder)
    store(folder, trainer.model, trainer.optimizer, trainer.step, notes_on(trainer))
    (Path(folder) / CHECKPOINT).unlink()


def resume(
    folder: str | Path, shape: MeshShape, corpus=None, steps: int | None = None, **choices
) -> ParallelTrainer:
    """The run in `folder` after its last whole checkpoint, on any mesh; choices as in `divide`.

    A run of one process becomes one of many.

    Errors: FileNotFoundError without a checkpoint; ValueError for another corpus or tokenizer than
    the run began with, or a mesh that does not fit.
    """
    if newest(folder) is None and is_run(folder):
        on_first(from_one_process, folder)
    path = newest(folder)
    if path is None:
        raise FileNotFoundError(f"there is no whole checkpoint in {folder}: begin a new run")
    about = notes_of(path)["about"]
    settings = TrainSettings.from_dict(about["settings"])
    settings = settings if steps is None else _longer(settings, steps, path)
    corpus = load_corpus(about["source"]) if corpus is None else corpus
    tokenizer = load_tokenizer(folder)
    here = (corpus.fingerprint, tokenizer.fingerprint)
    if here != (about["corpus"]["sha256"], about["tokenizer_sha256"]):
        raise ValueError(f"the corpus or tokenizer is not the one that the run in {folder} had")
    kind = MODELS[about["config"]["model_type"]]
    model = kind(config_from_json(kind.config_class, about["config"]))
    whole = prepare(model, shape, settings, **choices)
    trainer = ParallelTrainer(whole, tokenizer, corpus, settings, folder)
    on_first(_cut, folder, trainer.folder, notes_of(path)["step"])
    trainer.restore(path)
    return trainer


def _longer(settings: TrainSettings, steps: int, path: Path) -> TrainSettings:
    if steps < (done := notes_of(path)["step"]):
        raise ValueError(f"steps is {steps} and {path} has done {done}: give more")
    return replace(settings, steps=steps)


def prepare(model: nn.Module, shape: MeshShape, settings: TrainSettings, **choices):
    """The model, the same in every process, divided; block by block it comes to the device."""
    mesh = make_mesh(shape, settings.torch_device().type)
    return divide(model, mesh, bf16=settings.uses_bf16(), **choices)


def _begin(path, about, tokenizer) -> None:
    if newest(path) is not None:
        raise FileExistsError(f"{path} already holds a training run: go on with it (--from {path})")
    RunFolder.start(path, about, tokenizer)


def _cut(folder, run: RunFolder, step: int) -> None:
    """Lines of the log after the checkpoint: those steps are done again."""
    sweep(folder)
    done = [line for line in run._read_log() if int(line["step"]) <= step]
    run._write_log(done)


def _write_weights(folder, inside, tensors, tokenizer, about) -> None:
    with shapes_alone():
        model = MODELS[inside.config.model_type](inside.config)
    model.load_state_dict(tensors, assign=True)
    save_model(folder, model, tokenizer, about)
