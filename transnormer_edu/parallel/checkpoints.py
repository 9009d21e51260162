"""Checkpoints of a divided model: every process writes its part, while the training goes on.

    runs/NAME/checkpoints/00000120/
      .metadata, *.distcp     weights and AdamW's moments (torch.distributed.checkpoint)
      run.json                what else the next step depends on

`.metadata` is written last: a folder without it was never finished and is removed. What is stored
says nothing of the mesh, so a run may go on with another one. The fused projections are by heads
(order.py); `load_weights` reads such a checkpoint in one process, as a model of the released order.
"""

import json
import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.utils._pytree import tree_map

from transnormer_edu.atomic import write_text
from transnormer_edu.parallel.order import weights_as_released, weights_by_heads
from transnormer_edu.parallel.processes import on_first
from transnormer_edu.pretrained import MODELS
from transnormer_edu.released_config import config_from_json
from transnormer_edu.released_tokenizers import load_tokenizer
from transnormer_edu.run_folder import save_model

FOLDER, DONE, NOTES = "checkpoints", ".metadata", "run.json"


def newest(run: str | Path) -> Path | None:
    """The last whole checkpoint of the run in this folder; None where there is none."""
    folder = Path(run) / FOLDER
    return max((one.parent for one in folder.glob(f"*/{DONE}")), default=None)


def is_checkpoint(path: str | Path) -> bool:
    """Whether this folder is a whole checkpoint."""
    return (Path(path) / DONE).is_file()


def notes_of(checkpoint: Path) -> dict:
    """What run.json of a checkpoint says. ValueError where it is damaged."""
    try:
        return json.loads((checkpoint / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(checkpoint, error) from error


class Checkpoints:
    """Writes the checkpoints of one run; all processes make one, and call it together."""

    def __init__(self, run: str | Path):
        self.folder = Path(run) / FOLDER
        self.group = dist.new_group(backend="gloo")  # of its own: it sends while training sends
        self.pending, self.last = None, None

    def save(self, model: nn.Module, optimizer, step: int, notes: dict) -> None:
        """Begin to write; `model`: the one inside. The training may go on at once."""
        self.wait()
        path = self.folder / f"{step:08d}"
        if path == self.last:
            return
        on_first(_begin, path, notes)
        # Before its first step AdamW remembers nothing, and asking would make it count one.
        state = tree_map(_own_copy, state_of(model, optimizer if step else None))
        self.pending = dcp.async_save(state, checkpoint_id=path, process_group=self.group)
        self.last = path

    def wait(self) -> None:
        """Until the checkpoint under way is whole; only then older ones are removed."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None
            dist.barrier(self.group)
            on_first(_keep_only, self.folder, self.last)


def restore(path: Path, model: nn.Module, optimizer) -> None:
    """Inverse of `Checkpoints.save`, on any mesh. ValueError for what is damaged."""
    fresh = notes_of(path)["step"] == 0
    state = state_of(model, None if fresh else optimizer)
    _load(state, path)
    set_model_state_dict(model, state["model"])
    if not fresh:
        set_optimizer_state_dict(model, optimizer, state["optimizer"])


def store(run: str | Path, model: nn.Module, optimizer, step: int, notes: dict) -> None:
    """The checkpoint that a divided model would write, of a model in one process."""
    state = state_of(model, optimizer if step else None)
    state["model"] = weights_by_heads(state["model"], model.config)
    for name, kept in state.get("optimizer", {}).get("state", {}).items():
        for moment in ("exp_avg", "exp_avg_sq"):
            kept |= {moment: weights_by_heads({name: kept[moment]}, model.config)[name]}
    path = Path(run) / FOLDER / f"{step:08d}"
    _begin(path, notes)
    dcp.save(state, checkpoint_id=path, no_dist=True)


def state_of(model: nn.Module, optimizer=None) -> dict:
    """Weights, and what the optimizer remembers: this process's parts."""
    state = {"model": get_model_state_dict(model)}
    if optimizer is not None:
        state["optimizer"] = get_optimizer_state_dict(model, optimizer)
    return state


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights in process 0, on its CPU, in the released order; {} elsewhere."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return weights_as_released(get_model_state_dict(model, options=options), model.config)


def load_weights(source: str | Path) -> nn.Module:
    """The model of a checkpoint, or of a run's newest, in one process: `save_pretrained` writes it.

    Errors: FileNotFoundError where there is none; ValueError for a damaged one.
    """
    path = Path(source) if is_checkpoint(source) else newest(source)
    if path is None:
        raise FileNotFoundError(f"there is no whole checkpoint in {Path(source) / FOLDER}")
    config = notes_of(path)["about"]["config"]
    kind = MODELS[config["model_type"]]
    model = kind(config_from_json(kind.config_class, config))
    state = {"model": weights_by_heads(model.state_dict(), model.config)}
    _load(state, path, no_dist=True)
    model.load_state_dict(weights_as_released(state["model"], model.config))
    return model


def export(path: Path, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """A checkpoint as a folder of weights in the released format, in `dtype`, with tokenizer.

    FileExistsError where `folder` exists; else as `load_weights`.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: remove it or choose another name.")
    model, tokenizer = load_weights(path).to(dtype), load_tokenizer(path.parents[1])
    save_model(folder, model, tokenizer, notes_of(path)["about"])


def sweep(run: str | Path) -> None:
    """Remove what was never finished."""
    for path in _steps(Path(run) / FOLDER):
        if not (path / DONE).exists():
            shutil.rmtree(path)


def _load(state: dict, path: Path, **how) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as asked for
            dcp.load(state, checkpoint_id=path, **how)
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> ValueError:
    best = path.parents[1] / "best"
    while isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    why = " ".join(f"{type(error).__name__} {error}".split())[:300]
    return ValueError(f"{path} is damaged ({why}): begin a new run from weights, --from {best}")


def _begin(path: Path, notes: dict) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    write_text(path / NOTES, json.dumps(notes) + "\n")


def _keep_only(folder: Path, kept: Path) -> None:
    for path in _steps(folder):
        if path.name < kept.name:
            shutil.rmtree(path)


def _steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, named by their steps; what else lies there is not ours."""
    return [path for path in folder.glob("*") if path.name.isdigit() and path.is_dir()]


def _own_copy(x):
    """On a CPU the next update would change what is being written."""
    return x.clone() if isinstance(x, torch.Tensor) and x.device.type == "cpu" else x
