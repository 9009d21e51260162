"""The training loop.

    model = TransNormerLLM(TransNormerConfig(vocab_size=tokenizer.vocab_size, dim=192, ...))
    trainer = Trainer(model, tokenizer, load_corpus("english"), TrainSettings(), "runs/demo")
    for step in trainer:            # or trainer.run(), with a progress bar
        print(step.loss)

    trainer = resume("runs/demo")   # after a crash: the same losses to the bit as without it

One update, for ids x of shape (b, n):

    g = mean over `accumulate` batches of grad loss(x)          loss: nats per token
    g = g * min(1, clip / |g|)
    w = w - rate(step) * (AdamW's direction(g) + weight_decay * w)

Everything that a step depends on is the weights, AdamW's two moments and the number of the step:
the learning rate and the data are functions of that number. So a checkpoint is small in ideas, and
a run that was killed goes on as if nothing had been. Any model that gives `model(ids, labels=ids)`
can be trained; the same seed gives each of them the same batches in the same order.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from transnormer_edu import check
from transnormer_edu.atomic import whole_turn
from transnormer_edu.batches import Batches
from transnormer_edu.data import Corpus, load_corpus
from transnormer_edu.evaluate import Score, check_fit, evaluate
from transnormer_edu.installed_text import NAME as INSTALLED
from transnormer_edu.pretrained import MODELS, load_pretrained
from transnormer_edu.released_config import config_from_json
from transnormer_edu.released_tokenizers import load_tokenizer
from transnormer_edu.run_folder import RunFolder, about_run, weights_folder
from transnormer_edu.settings import TrainSettings
from transnormer_edu.token_file import TokenFile
from transnormer_edu.tokenizer import Tokenizer

MOST_ROWS = 16  # read at once in a look at the held-out text


@dataclass(frozen=True)
class Step:
    """What one update has shown.

    step                number of the update, from 1
    loss                nats per token on its batch, before the update
    learning_rate       used for it
    gradient_norm       before clipping
    tokens              read since the run began
    tokens_per_second   since this process began, without evaluations and writing
    held_out            the Score on held-out text, at the steps that look at it
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    tokens_per_second: float
    held_out: Score | None = None


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW; weight decay on the matrices of the layers alone.

    Embeddings (and with them the tied head) and LRPE's angles do not decay: a rare token's row
    would shrink each time it is not seen.
    """
    embeddings = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = {m.weight for m in model.modules() if isinstance(m, nn.Linear)} - embeddings
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p in matrices], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p not in matrices], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)


class Trainer:
    """A run that can be iterated: each turn is one update and yields its `Step`.

    folder: where the run is written (see run_folder.py); None: nowhere. The model is trained in
    place and moved to the settings' device.

    Errors: ValueError for a corpus smaller than one batch or a tokenizer that does not fit the
    model; FileExistsError for a folder with a run in it; while training, FloatingPointError for a
    loss that is no number, and DiskFull, both with the last whole checkpoint kept.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        corpus: Corpus | TokenFile,
        settings: TrainSettings,
        folder: str | Path | RunFolder | None = None,
    ):
        check_fit(model, tokenizer)
        if not isinstance(corpus, TokenFile):
            check.kind("corpus", corpus, Corpus)
        check.kind("settings", settings, TrainSettings)
        self.tokenizer, self.corpus, self.settings = tokenizer, corpus, settings
        self.device = settings.torch_device()
        self.model = model.to(self.device).train()
        row = corpus.row(tokenizer)
        self.batches = Batches(row, settings.context, settings.batch_size, settings.seed)
        self.optimizer = make_optimizer(model, settings)
        self._about = about_run(model, tokenizer, corpus, settings)
        self.step = 0
        self.best = math.inf  # held-out bits per byte of what is in best/
        self.looks: list[dict] = []  # what log.json holds
        self.final: Score | None = None  # on all of the held-out text, after the last step
        self.seconds = 0.0  # spent on updates, in all processes of this run
        self._since = (0, 0.0)  # step and seconds at which this process began
        if folder is not None and not isinstance(folder, RunFolder):
            self.folder = RunFolder.start(folder, self.about(), tokenizer)
            self.save()  # a run can go on from its first moment
        else:
            self.folder = folder

    def __iter__(self) -> Iterator[Step]:
        """Do the updates that are left, one per turn. Who leaves the loop early can go on with it;
        in the folder stands what `save` wrote last.
        """
        while self.step < self.settings.steps:
            with whole_turn():
                begin = time.perf_counter()
                loss, norm = self._update()
                self.seconds += time.perf_counter() - begin
                step = self._look_and_save(loss, norm)
            yield step

    def run(
        self,
        on_step: Callable[[Step], None] | None = None,
        progress: bool = True,
        until: int | None = None,
    ) -> Score:
        """All updates that are left, with a progress bar; then the score on all held-out text.

        on_step is called with each `Step` (a live plot, a sample now and then). `until` ends after
        that step of the plan, with a checkpoint: `resume` goes on. Ctrl-C waits for the end of a
        step and writes a checkpoint before it goes through.

        Errors: ValueError for an `until` that is done already or not in the plan.
        """
        if until is not None and not check.is_whole(until, self.step + 1, self.settings.steps + 1):
            raise ValueError(
                f"until is {until!r}, expected a step from {self.step + 1} to {self.settings.steps}"
            )
        bar = tqdm(total=self.settings.steps, initial=self.step, unit="step", disable=not progress)
        shown = {}
        try:
            with bar:
                for step in self:
                    shown |= {"loss": f"{step.loss:.3f}", "tok/s": f"{step.tokens_per_second:.0f}"}
                    if step.held_out:
                        shown["held-out bits/byte"] = f"{step.held_out.bits_per_byte:.3f}"
                    bar.set_postfix(shown)
                    bar.update()
                    if on_step is not None:
                        on_step(step)
                    if step.step == until:
                        self.save()
                        break
        except KeyboardInterrupt:
            self._save_interrupted()
            raise
        return self.final or self.held_out_score()

    def held_out_score(self, max_windows: int | None = None) -> Score:
        """The held-out text under the model as it is now, in windows without overlap."""
        s, text = self.settings, self.corpus.held_out_text
        rows = min(MOST_ROWS, s.batch_size)  # no more memory than an update takes
        with self.bf16():
            return evaluate(
                self.model, self.tokenizer, text, s.context, s.context, rows, max_windows
            )

    def bf16(self) -> torch.autocast:
        """What forward passes run under: autocast, where the settings want it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.uses_bf16())

    def _update(self) -> tuple[float, float]:
        """One update: the loss before it (nats per token) and the gradient's norm."""
        s = self.settings
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)  # read once: reading makes a GPU stop and wait
        for i in range(self.step * s.accumulate, (self.step + 1) * s.accumulate):
            ids = self.batches[i].to(self.device).long()
            with self.bf16():
                share = self.model(ids, labels=ids) / s.accumulate
            share.backward()
            total += share.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), s.clip or math.inf)
        loss, norm = float(total), float(norm)
        self._stop_if_not_a_number(loss, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate_at(self.step + 1)
        self.optimizer.step()
        self.step += 1
        return loss, norm

    def _stop_if_not_a_number(self, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"At step {self.step + 1} the loss is {loss} and its gradient's norm {norm}, "
                f"expected numbers: lower learning_rate ({self.settings.learning_rate:g}) or raise "
                f"warmup ({self.settings.warmup}); the last checkpoint is from before that."
            )

    def _look_and_save(self, loss: float, norm: float) -> Step:
        """Whatever is due after this step; the step's report."""
        s, is_last = self.settings, self.step == self.settings.steps
        look = is_last or (s.eval_every and self.step % s.eval_every == 0)
        held_out = self.held_out_score(s.eval_windows) if look else None
        tokens = self.step * s.tokens_per_step
        speed = (self.step - self._since[0]) * s.tokens_per_step / (self.seconds - self._since[1])
        step = Step(self.step, loss, s.rate_at(self.step), norm, tokens, speed, held_out)
        if is_last:
            self.final = self.held_out_score() if s.eval_windows else held_out
        if self.folder:
            self.folder.log(step, self.seconds)
            if held_out:
                self._keep_if_best(held_out)
            if is_last:
                self.folder.save_model("last", self.model, self.tokenizer, self.about(self.final))
            if is_last or (s.save_every and self.step % s.save_every == 0):
                self.save()
        return step

    def _keep_if_best(self, held_out: Score) -> None:
        self.looks.append({"step": self.step} | held_out.as_dict())
        self.folder.log_looks(self.looks, self.about(self.final))
        if held_out.bits_per_byte < self.best:
            self.best = held_out.bits_per_byte
            self.folder.save_model("best", self.model, self.tokenizer, self.about(held_out))

    def save(self) -> None:
        """Write checkpoint.pt, whole or not at all: everything the next step depends on."""
        if self.folder is None:
            return
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self.folder.save_checkpoint(
            {
                "about": json.dumps(self.about() | {"source": self.corpus.source}),
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": [torch.get_rng_state(), *gpus],
                "best": self.best,
                "looks": json.dumps(self.looks),
                "seconds": self.seconds,
            }
        )

    def _save_interrupted(self) -> None:
        self.save()

    def restore(self, state: dict) -> None:
        """Inverse of `save`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        cpu, *gpus = state["random"]
        torch.set_rng_state(cpu)
        if gpus and torch.cuda.device_count() == len(gpus):
            torch.cuda.set_rng_state_all(gpus)
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.looks = json.loads(state["looks"])
        self._since = (self.step, self.seconds)

    def about(self, held_out: Score | None = None) -> dict:
        """What model this is, from what text and settings: stored with everything written."""
        return self._about | {
            "step": self.step,
            "held_out": held_out.as_dict() if held_out else None,
        }


def resume(
    folder: str | Path, corpus: Corpus | TokenFile | None = None, steps: int | None = None
) -> Trainer:
    """The run in `folder`, ready to go on after its last whole checkpoint.

    corpus   None: read again from where the run had it
    steps    None: as many as planned; more: the learning rate follows the longer plan from here

    Errors: FileNotFoundError without a run there; ValueError for a damaged checkpoint, another
    corpus or another tokenizer than the run began with.
    """
    run = RunFolder(folder)
    state = run.reopen()
    about = json.loads(state["about"])
    corpus = _corpus_of(about) if corpus is None else corpus
    tokenizer = load_tokenizer(folder)
    _demand_same("corpus", corpus.fingerprint, about["corpus"]["sha256"], run)
    _demand_same("tokenizer", tokenizer.fingerprint, about["tokenizer_sha256"], run)
    settings = TrainSettings.from_dict(about["settings"])
    if steps is not None:
        if check.whole("steps", steps) < state["step"]:
            raise ValueError(
                f"steps is {steps} and the run in {folder} has done {state['step']}: give more."
            )
        settings = replace(settings, steps=steps)
    kind = MODELS[about["config"]["model_type"]]
    model = kind(config_from_json(kind.config_class, about["config"]))
    trainer = Trainer(model, tokenizer, corpus, settings, run)
    trainer.restore(state)
    return trainer


def _corpus_of(about: dict) -> Corpus | TokenFile:
    """The corpus of a run, read again; ValueError for one that was handed to the run ready-made."""
    if not about["source"] or about["source"] == INSTALLED:
        raise ValueError(
            f"The run was trained on the corpus {about['corpus']['name']!r}, which cannot be read "
            "again by its name: give it once more, resume(folder, corpus)."
        )
    return load_corpus(about["source"])


def _demand_same(what: str, here: str, there: str, run: RunFolder) -> None:
    if here != there:
        raise ValueError(
            f"The {what} here has sha256 {here[:12]}, the run in {run.path} began with "
            f"{there[:12]} (another file, or another Python version?): go on with the same, "
            f"or begin a new run from its weights, --from {run.path / 'best'}."
        )


def load_trained(folder: str | Path) -> tuple[nn.Module, Tokenizer]:
    """Model (fp32) and tokenizer of a folder of weights, or of the best weights of a run's folder.

    Errors: FileNotFoundError or ValueError, naming the file that is missing or damaged.
    """
    folder = weights_folder(folder)
    return load_pretrained(folder, torch.float32), load_tokenizer(folder)
