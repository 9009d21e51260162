"""The command `transnormer-edu train`: from its options to a trainer.

Heavy modules are imported inside the functions, so that --help answers at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from transnormer_edu.job import in_a_job, say


class Kind(StrEnum):
    """The two models that `train` makes."""

    linear = "linear"
    softmax = "softmax"


class Decay(StrEnum):
    """How a TransNormerLLM forgets: `transnormer_edu.decay.SCHEDULES`."""

    released = "released"
    paper = "paper"
    flat = "flat"
    none = "none"


class Exchange(StrEnum):
    """How processes hand on the state: `transnormer_edu.parallel.exchange`."""

    ring = "ring"
    gather = "gather"


MANY = "Several processes, started by torchrun"

# What `train` makes unless told otherwise: small enough to learn on a laptop in minutes.
SMALL = {
    "kind": Kind.linear, "dim": 192, "layers": 3, "heads": 3, "glu_dim": 512, "vocab_size": 2048,
}  # fmt: skip


def train(
    data: Annotated[
        str | None,
        typer.Option(
            help="english, source (both from your Python), a text file or folder, or prepared.",
            show_default="english",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run: log, checkpoint, best and last weights.",
            show_default="runs/small",
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Go on with a run (to its end, or to --steps), or from weights."
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(help="TransNormerLLM, or a softmax transformer.", show_default="linear"),
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Width of the model.", show_default="192")] = None,
    layers: Annotated[int | None, typer.Option(help="Blocks.", show_default="3")] = None,
    heads: Annotated[int | None, typer.Option(help="Heads per block.", show_default="3")] = None,
    glu_dim: Annotated[
        int | None, typer.Option(help="Width inside the channel mixer.", show_default="512")
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(help="Tokens, learned from the data; 259: single bytes.", show_default="2048"),
    ] = None,
    decay: Annotated[
        Decay | None,
        typer.Option(help="How heads forget (linear only).", show_default="released"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates of the weights.", show_default="400")
    ] = None,
    until: Annotated[
        int | None, typer.Option(help="End after this step of the plan; --from goes on.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Windows of text in one forward pass.", show_default="8")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens in a window.", show_default="256")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Forward passes for one update.", show_default="1")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate at its highest.", show_default="0.004")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Steps in which it rises to that.", show_default="40")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Weight decay of the layers' matrices.", show_default="0.1")
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="Largest norm of a gradient; 0: any.", show_default="1.0")
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between scores on held-out text.", show_default="100")
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", show_default="100")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of first weights and data order.", show_default="0")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32 or bf16.", show_default="auto")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto")
    ] = None,
    data_parallel: Annotated[
        int | None,
        typer.Option(
            help="Processes that share a batch.", show_default="the rest", rich_help_panel=MANY
        ),
    ] = None,
    sequence_parallel: Annotated[
        int | None,
        typer.Option(help="Processes that share a text.", show_default="1", rich_help_panel=MANY),
    ] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option(
            help="Processes that share each layer.", show_default="1", rich_help_panel=MANY
        ),
    ] = None,
    exchange: Annotated[
        Exchange | None,
        typer.Option(
            help="State of a text's stretches: from neighbours, or everyone's to everyone.",
            show_default="ring",
            rich_help_panel=MANY,
        ),
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Compute each block again in the backward: less memory.",
            rich_help_panel=MANY,
        ),
    ] = False,
    prompt: Annotated[str, typer.Option(help="Start of the sample shown at the end.")] = "The",
):
    """Train a small model on English that your Python carries: some minutes on a laptop's CPU.

    Without --from a new run begins in --out. A stopped or killed run goes on with --from and its
    folder, to the same losses as without the stop. `torchrun --nproc-per-node 4 -m transnormer_edu
    train ...` does the same on 4 processes, of one machine or many.
    """
    settings = _given(
        steps=steps, batch_size=batch_size, context=context, accumulate=accumulate,
        learning_rate=learning_rate, warmup=warmup, weight_decay=weight_decay, clip=clip,
        eval_every=eval_every, save_every=save_every, seed=seed, precision=precision,
        device=device,
    )  # fmt: skip
    model = _given(
        kind=kind, dim=dim, layers=layers, heads=heads, glu_dim=glu_dim, vocab_size=vocab_size,
        decay=decay,
    )  # fmt: skip
    axes = _given(data=data_parallel, sequence=sequence_parallel, tensor=tensor_parallel)
    choices = _given(exchange=exchange, recompute=recompute or None)
    engine = _engine(from_, settings.get("device", "auto"), axes, choices)
    trainer = _trainer(from_, _given(data=data, out=out), model, settings, engine)
    say(trainer.corpus.describe())
    score = trainer.run(until=until)
    say(f"held out: {score}")
    written = f"written to {trainer.folder.path}:"
    if until is not None and until < trainer.settings.steps:
        say(f"{written} ended at step {until}, train --from goes on\n")
    else:
        say(f"{written} best/ and last/ hold the weights\n")
    engine.end(trainer, prompt)


class OneProcess:
    """How a run begins, goes on and ends without torchrun; `parallel.command.Mesh`: with it."""

    def is_run(self, folder: Path) -> bool:
        """Whether a run can go on from here."""
        from transnormer_edu.run_folder import is_run

        return is_run(folder)

    def new(self, *parts):
        """A run that begins in a folder."""
        from transnormer_edu.train import Trainer

        return Trainer(*parts)

    def resume(self, folder: Path, steps: int | None):
        """The run in `folder`."""
        from transnormer_edu.train import resume

        return resume(folder, steps=steps)

    def end(self, trainer, prompt: str) -> None:
        """Let the model write."""
        from transnormer_edu.write import printable, write_text

        sample = write_text(trainer.model, trainer.tokenizer, prompt, 80, temperature=0.8, seed=0)
        typer.echo(prompt + printable("".join(sample)))


def _engine(from_, device, axes, choices):
    """The mesh where torchrun, an option or the run to go on with asks for one."""
    if not (in_a_job() or axes or choices or (from_ and (from_ / "checkpoints").is_dir())):
        return OneProcess()
    from transnormer_edu.parallel.command import Mesh

    return Mesh.meet(device, axes, choices)


def _given(**options):
    """Only what was asked for on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _trainer(from_, files, model, settings, engine):
    """A trainer for a new run, for one to go on with, or for a new run from given weights."""
    import torch

    from transnormer_edu.data import load_corpus
    from transnormer_edu.settings import TrainSettings
    from transnormer_edu.token_file import TokenFile
    from transnormer_edu.train import load_trained

    if from_ is not None and engine.is_run(from_):
        others = files | model | {k: v for k, v in settings.items() if k != "steps"}
        _refuse_settled(others, from_, f"begin a new run from its weights: --from {from_ / 'best'}")
        return engine.resume(from_, settings.get("steps"))
    chosen = TrainSettings.from_dict(settings)
    corpus = load_corpus(files.get("data", "english"))
    if isinstance(corpus, TokenFile) and "vocab_size" in model:
        _refuse_settled(["vocab_size"], corpus.folder, "prepare the text again")
    torch.manual_seed(chosen.seed)
    if from_ is not None:
        _refuse_settled(model, from_, "begin a new run without --from")
        network, tokenizer = load_trained(from_)
    else:
        network, tokenizer = _new_model(corpus, **SMALL | model)
    return engine.new(network, tokenizer, corpus, chosen, files.get("out", Path("runs/small")))


def _refuse_settled(options, from_, advice):
    for name in options:
        raise ValueError(f"--{name.replace('_', '-')} is settled by {from_}: leave it, or {advice}")


def _new_model(corpus, kind, vocab_size, **sizes):
    from transnormer_edu.config import TransNormerConfig
    from transnormer_edu.model import TransNormerLLM
    from transnormer_edu.token_file import TokenFile
    from transnormer_edu.tokenizer import Tokenizer
    from transnormer_edu.transformer import Transformer, TransformerConfig

    if kind == Kind.softmax and "decay" in sizes:
        raise ValueError("--decay is of linear attention: leave it, or train --kind linear")
    if isinstance(corpus, TokenFile):
        tokenizer = corpus.tokenizer  # it was settled when the text was prepared
    elif vocab_size == 259:
        tokenizer = Tokenizer.of_bytes()
    else:
        tokenizer = Tokenizer.train((document.text for document in corpus.train), vocab_size)
    sizes["vocab_size"] = tokenizer.vocab_size
    if kind == Kind.softmax:
        return Transformer(TransformerConfig(**sizes)), tokenizer
    return TransNormerLLM(TransNormerConfig(**sizes)), tokenizer
