"""The paper's ablations at small scale: `transnormer-edu ablate`.

The protocol, the same for every row of ablation.py:

1. One corpus (installed_text.py), read once: `tokens` of it in a random order drawn from the seed,
   so all rows read the same batches. Scored on packages that are never trained on.
2. The learning rate is tuned for each row alike: each of `rates` trains for `tuning_tokens` with
   its own full schedule and seed `tuning_seed`; the lowest held-out loss wins. That seed is used
   for nothing else. A winner at an end of the grid is marked as such.
3. With that rate one run for each of `seeds`, which sets initial weights and order of the text.
4. Reported: the held-out loss at the end, its mean over seeds, and their standard deviation.

A finished run is one file, written whole or not at all:

    OUT/data/                  tokens and tokenizer, made on the first call
    OUT/runs/ROW-tuning.json   held-out loss of each learning rate
    OUT/runs/ROW-SEED.json     loss, curve, config, device, versions
    OUT/ablation.json          all of it, with means and spreads

So `ablate` can be stopped at any moment and called again: what is finished is not done again.
"""

import json
import math
import os
import platform
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from transnormer_edu import check
from transnormer_edu.ablation import CHOICES, Sizes, model_of
from transnormer_edu.ablation_data import Tokens, tokens_in
from transnormer_edu.atomic import write_text
from transnormer_edu.batches import Batches
from transnormer_edu.fast_run import FastRun
from transnormer_edu.lightning import triton_installed
from transnormer_edu.released_config import config_to_json
from transnormer_edu.settings import TrainSettings
from transnormer_edu.speed.results import git_commit

RESULT = "ablation.json"
LARGEST_VOCABULARY = 2**15
CURVE_POINTS = 60  # of the training loss, each the mean of the steps around it


@dataclass(frozen=True)
class Protocol:
    """What all rows have in common; see the top of this file."""

    sizes: Sizes = field(default_factory=Sizes)
    tokens: int = 30_000_000
    tuning_tokens: int = 4_000_000
    held_out_tokens: int = 262_144
    batch_size: int = 32
    context: int = 512
    seeds: tuple[int, ...] = (1, 2, 3)
    tuning_seed: int = 0
    rates: tuple[float, ...] = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    looks: int = 10
    device: str = "auto"

    def __post_init__(self):
        for name in ("tokens", "tuning_tokens", "held_out_tokens", "looks"):
            check.whole(name, getattr(self, name))
        if self.tuning_tokens > self.tokens:
            raise ValueError(
                f"tuning_tokens is {self.tuning_tokens}, expected at most tokens, {self.tokens}"
            )
        if self.held_out_tokens % self.context:
            raise ValueError(
                f"held_out_tokens is {self.held_out_tokens}, expected whole windows of "
                f"{self.context}"
            )
        if self.sizes.vocab_size > LARGEST_VOCABULARY:
            raise ValueError(
                f"vocab_size is {self.sizes.vocab_size}, expected at most {LARGEST_VOCABULARY}: a "
                "token is kept in two bytes"
            )
        if not self.seeds or self.tuning_seed in self.seeds or len({*self.seeds}) < len(self.seeds):
            raise ValueError(
                f"seeds are {self.seeds}, expected different ones, none of them the seed of the "
                f"tuning, {self.tuning_seed}"
            )

    def settings(self, rate: float, seed: int, tokens: int) -> TrainSettings:
        """Settings of one run: a twentieth of the steps is warm-up."""
        steps = max(1, tokens // (self.batch_size * self.context))
        return TrainSettings(
            steps=steps, warmup=steps // 20, learning_rate=rate, seed=seed, device=self.device,
            batch_size=self.batch_size, context=self.context,
        )  # fmt: skip

    def as_dict(self) -> dict:
        """As plain values, the way JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))


SMALL = Protocol(
    sizes=Sizes(vocab_size=300, dim=32, layers=2, heads=2, glu_dim=48), tokens=4096,
    tuning_tokens=2048, held_out_tokens=2048, batch_size=4, context=64, seeds=(1, 2),
    rates=(2e-3, 8e-3), looks=2,
)  # fmt: skip


@dataclass(frozen=True)
class Ablation:
    """What a process needs to know to do rows.

    until   no run begins after this moment (time.time()); None: all are done
    """

    folder: Path
    protocol: Protocol
    compiled: bool = False
    until: float | None = None
    commit: str = ""
    threads: int | None = None


def ablate(
    folder: str | Path,
    protocol: Protocol,
    rows: tuple[str, ...] = tuple(CHOICES),
    jobs: int = 1,
    minutes: float | None = None,
    compiled: bool = False,
    commit: str | None = None,
) -> dict:
    """Train what is still missing of these rows, and gather all that is there: the results.

    jobs       rows trained at the same time, each in a process of its own
    minutes    no run begins after so many; those that run are finished
    commit     of this code, where git does not know

    Errors: ValueError for an unknown row, or a folder with runs of another protocol or corpus.
    """
    check.whole("jobs", jobs)
    for row in rows:
        check.one_of("row", row, CHOICES)
    folder, until = Path(folder), None if minutes is None else time.time() + 60 * minutes
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    tokens = _tokens(folder, protocol)
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    job = Ablation(
        folder, protocol, compiled, until, git_commit() if commit is None else commit, threads
    )
    if jobs == 1:
        for row in rows:
            run_row(job, row)
    else:
        _at_once(jobs, job, rows)
    results = gather(folder, protocol, tokens)
    write_text(folder / RESULT, json.dumps(results, indent=1) + "\n")
    return results


def _at_once(jobs: int, job: Ablation, rows: tuple[str, ...]) -> None:
    """`run_row` in so many processes. Ctrl-C and a row's error end all; runs are kept whole."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), _leave_ctrl_c_to_others) as pool:
        try:
            for done in as_completed([pool.submit(run_row, job, row) for row in rows]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


def _leave_ctrl_c_to_others() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_row(job: Ablation, row: str) -> None:
    """Tune this row's learning rate, then train it with each seed; what is there is kept."""
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.compiler.reset()  # another row, other blocks: what was compiled before is of no use
    p, tokens = job.protocol, _tokens(job.folder, job.protocol)
    tuned = _once(job, tokens, f"{row}-tuning", partial(tune, job, row, tokens))
    for seed in p.seeds if tuned else ():
        settings = p.settings(tuned["learning_rate"], seed, p.tokens)
        make = partial(train_once, job, row, tokens, settings, p.looks)
        _once(job, tokens, f"{row}-{seed}", make)


def tune(job: Ablation, row: str, tokens: Tokens) -> dict | None:
    """The held-out loss that each learning rate ends with after a short run, and the best rate.

    None when time is up before all of them are known.
    """
    p = job.protocol
    losses = {}
    for rate in p.rates:
        if _time_is_up(job):
            return None
        settings = p.settings(rate, p.tuning_seed, p.tuning_tokens)
        losses[rate] = train_once(job, row, tokens, settings)["loss"]
    best = min(p.rates, key=lambda rate: math.inf if losses[rate] is None else losses[rate])
    return {
        "learning_rate": best,
        "at_an_end": best in (min(p.rates), max(p.rates)),
        "losses": [[rate, losses[rate]] for rate in p.rates],
    }


def train_once(
    job: Ablation, row: str, tokens: Tokens, settings: TrainSettings, looks: int = 1
) -> dict:
    """One run from new weights: the loss it ends with, its curve, what it was and where.

    A loss that is no number (the run diverged) is None.
    """
    torch.manual_seed(settings.seed)
    model, device = model_of(row, job.protocol.sizes), settings.torch_device()
    batches = Batches(tokens.train.to(device), settings.context, settings.batch_size, settings.seed)
    batches = torch.stack([batches[i] for i in range(settings.steps)])
    run = FastRun(model, batches, settings, job.compiled)
    curve, seconds = _curve(run, tokens, looks)
    read, loss = curve[-1]
    about = f"{row} seed {settings.seed} rate {settings.learning_rate:g}"
    said = f"{about}: loss {loss} after {read:,} tokens, {read / seconds:,.0f} a second\n"
    print(said, end="", flush=True)  # in one piece: other processes print too
    return {
        "row": row,
        "seed": settings.seed,
        "learning_rate": settings.learning_rate,
        "loss": loss,
        "curve": curve,
        "training_loss": _thinned(run.losses.tolist(), settings.tokens_per_step),
        "config": config_to_json(model.config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 2),
        "where": where(device, job),
    }


def _curve(run: FastRun, tokens: Tokens, looks: int) -> tuple[list[list], float]:
    """[tokens read, held-out loss] at so many moments, evenly spread; the seconds of training."""
    steps, curve, seconds = run.settings.steps, [], 0.0
    for step in sorted({math.ceil(steps * (i + 1) / looks) for i in range(looks)}):
        seconds += run.run(step)
        loss = _number(run.held_out_loss(tokens.held_out))
        curve.append([step * run.settings.tokens_per_step, loss])
    return curve, seconds


def where(device: torch.device, job: Ablation) -> dict:
    """What else a result depends on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": metadata.version("triton") if triton_installed() else None,
        "commit": job.commit,
        "compiled": job.compiled,
        "date": datetime.now(UTC).date().isoformat(),
    }


def gather(folder: Path, protocol: Protocol, tokens: Tokens) -> dict:
    """All finished runs, with the mean over seeds and the standard deviation between them."""
    rows = {}
    for row in CHOICES:
        runs = [kept(folder, f"{row}-{seed}", protocol, tokens) for seed in protocol.seeds]
        runs = [run for run in runs if run]
        if runs:
            rows[row] = summary(runs, kept(folder, f"{row}-tuning", protocol, tokens))
    return {"protocol": protocol.as_dict(), "data": tokens.about, "rows": rows}


def summary(runs: list[dict], tuning: dict) -> dict:
    """What runs that differ only in their seed have in common, and what each came to."""
    losses = [run["loss"] for run in runs]
    whole = None not in losses
    shared = {key: runs[0][key] for key in ("config", "parameters", "learning_rate")}
    own = ("seed", "loss", "curve", "training_loss", "seconds", "where")
    return shared | {
        "mean": statistics.fmean(losses) if whole else None,
        "spread": statistics.stdev(losses) if whole and len(losses) > 1 else None,
        "tuning": {key: tuning[key] for key in ("losses", "at_an_end")},
        "runs": [{key: run[key] for key in own} for run in runs],
    }


def kept(folder: Path, name: str, protocol: Protocol, tokens: Tokens) -> dict | None:
    """What a finished run left, or None. ValueError where it was of another protocol or corpus."""
    path = folder / "runs" / f"{name}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    for what, here in _about(protocol, tokens).items():
        if found[what] != here:
            raise ValueError(
                f"{path} has {what} {found[what]}, here it is {here}: give another --out"
            )
    return found


def _time_is_up(job: Ablation) -> bool:
    return job.until is not None and time.time() >= job.until


def _once(job: Ablation, tokens: Tokens, name: str, make: Callable[[], dict | None]) -> dict | None:
    """What was kept under this name; made first where it is missing. None when time is up."""
    found = kept(job.folder, name, job.protocol, tokens)
    if found is None and not _time_is_up(job) and (made := make()):
        found = _about(job.protocol, tokens) | made
        write_text(job.folder / "runs" / f"{name}.json", json.dumps(found) + "\n")
    return found


def _about(protocol: Protocol, tokens: Tokens) -> dict:
    return {"protocol": protocol.as_dict(), "tokens_sha256": tokens.about["tokens_sha256"]}


def _tokens(folder: Path, p: Protocol) -> Tokens:
    return tokens_in(folder / "data", p.tokens, p.held_out_tokens, p.context, p.sizes.vocab_size)


def _number(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _thinned(losses: list[float], tokens_per_step: int) -> list[list]:
    """[tokens, mean loss] of CURVE_POINTS stretches of the run."""
    size = math.ceil(len(losses) / CURVE_POINTS)
    stretches = (losses[i : i + size] for i in range(0, len(losses), size))
    means = [statistics.fmean(stretch) for stretch in stretches]
    ends = [min((i + 1) * size, len(losses)) * tokens_per_step for i in range(len(means))]
    return [[end, _number(round(mean, 4))] for end, mean in zip(ends, means, strict=True)]
