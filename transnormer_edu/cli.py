"""The command `transnormer-edu`. Each command only reads its options and calls the package.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

import functools
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="TransNormerLLM on your own machine: the course, and a model you train and use.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
app.add_typer(bench, name="bench")


class Kind(StrEnum):
    """The two models that `train` makes."""

    linear = "linear"
    softmax = "softmax"


class Decay(StrEnum):
    """How a TransNormerLLM forgets: `transnormer_edu.decay.SCHEDULES`."""

    released = "released"
    paper = "paper"
    none = "none"


# What `train` makes unless told otherwise: small enough to learn on a laptop in minutes.
SMALL = {
    "kind": Kind.linear, "dim": 192, "layers": 3, "heads": 3, "glu_dim": 512, "vocab_size": 2048,
}  # fmt: skip


def says_what_is_wrong(command):
    """Turn an expected error into its one sentence and exit status 1, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            typer.echo(f"transnormer-edu: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("\nstopped", err=True)
            raise typer.Exit(130) from None

    return wrapped


@app.command()
@says_what_is_wrong
def doctor():
    """What is installed, what works, what does not and how to mend it."""
    from transnormer_edu.doctor import checks, healthy

    findings = checks()
    for check in findings:
        typer.echo(f"{check.mark:8} {check.name:20} {check.what}")
        if not check.ok and check.mend:
            typer.echo(f"{'':29} {check.mend}")
    if not healthy(findings):
        raise typer.Exit(1)


@app.command()
@says_what_is_wrong
def course(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="Only these, by number: 00 11. All by default.")
    ] = None,
):
    """Run the lessons with a progress bar and write them as pages under build/."""
    from transnormer_edu.course import build_course

    raise typer.Exit(build_course(lessons or None))


@app.command()
@says_what_is_wrong
def lab():
    """Open JupyterLab on the first lesson."""
    from transnormer_edu.course import open_lab

    raise typer.Exit(open_lab())


@app.command()
@says_what_is_wrong
def train(
    data: Annotated[
        str | None,
        typer.Option(
            help="english, source (both from your Python), or a text file or folder.",
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
        typer.Option("--from", help="Go on: a run (to its end, or to --steps), or weights."),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(help="TransNormerLLM, or its softmax twin.", show_default="linear"),
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Width.", show_default="192")] = None,
    layers: Annotated[int | None, typer.Option(help="Blocks.", show_default="3")] = None,
    heads: Annotated[int | None, typer.Option(help="Heads per block.", show_default="3")] = None,
    glu_dim: Annotated[
        int | None, typer.Option(help="Width inside the channel mixer.", show_default="512")
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            help="Tokens of the BPE trained on the data; 259: single bytes.", show_default="2048"
        ),
    ] = None,
    decay: Annotated[
        Decay | None,
        typer.Option(help="How heads forget (linear only).", show_default="released"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the weights.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows in one forward pass.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens in a window.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes per update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps to get there.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of the layers' matrices.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm; 0: none.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between held-out scores.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and data order.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    prompt: Annotated[str, typer.Option(help="Start of the sample shown at the end.")] = "The",
):
    """Train a small model on English that your Python carries: some minutes on a laptop's CPU.

    Without --from a new run begins in --out. A stopped or killed run goes on with --from and its
    folder, to the same losses as without the stop.
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
    trainer = _trainer(from_, _given(data=data, out=out), model, settings)
    typer.echo(trainer.corpus.describe())
    score = trainer.run()
    typer.echo(f"held out: {score}")
    typer.echo(f"written to {trainer.folder.path}: best/ and last/ hold the weights\n")
    typer.echo(_sample(trainer.model, trainer.tokenizer, prompt))


@app.command()
@says_what_is_wrong
def export(
    run: Annotated[Path, typer.Argument(help="A run, or a folder of weights that one wrote.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the weights.")],
):
    """Weights of a run in float16, to give away: with tokenizer, model card and fingerprints."""
    from transnormer_edu.run_folder import export

    export(run, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    typer.echo(f"wrote {folder} ({size / 1e6:.1f} MB)")


@app.command("eval")
@says_what_is_wrong
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Weights, or a run.")],
    file: Annotated[Path, typer.Argument(help="A text file of yours.")],
    context: Annotated[int, typer.Option(help="Tokens a window reads.")] = 256,
    carry_state: Annotated[
        bool, typer.Option(help="Read the text in one go, the state carried on.")
    ] = False,
):
    """Loss, perplexity and bits per byte of a model on your own text."""
    from transnormer_edu.data import read_text_file, zlib_bits_per_byte
    from transnormer_edu.evaluate import evaluate
    from transnormer_edu.train import load_trained

    text = read_text_file(file)
    model, tokenizer = load_trained(folder)
    typer.echo(evaluate(model, tokenizer, text, context, carry_state=carry_state))
    typer.echo(f"zlib -9 needs {zlib_bits_per_byte(text):.3f} bits per byte")


@app.command()
@says_what_is_wrong
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")] = "The",
    model: Annotated[
        Path | None, typer.Option(help="Weights or a run; by default the course's own small model.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 120,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from this share of the mass.")] = 0.95,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same text.")] = None,
):
    """Let a model write; the text appears as it is written."""
    from transnormer_edu.train import load_trained
    from transnormer_edu.weights import small_model_folder
    from transnormer_edu.write import write_text

    network, tokenizer = load_trained(model or small_model_folder())
    pieces = write_text(
        network, tokenizer, prompt, max_new_tokens,
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
    )  # fmt: skip
    typer.echo(prompt, nl=False)
    for piece in pieces:
        typer.echo(_printable(piece), nl=False)
    typer.echo()


@app.command()
@says_what_is_wrong
def info(
    preset: Annotated[str, typer.Argument(help="385m 1b 3b 7b 13b 15b 65b 175b, or a folder.")],
):
    """Shapes, parameters, memory and FLOPs of a published size, or of a folder's model."""
    from transnormer_edu.checkpoint import config_from_json, read_config
    from transnormer_edu.config import TransNormerConfig
    from transnormer_edu.info import describe
    from transnormer_edu.run_folder import weights_folder

    if preset and Path(preset).is_dir():
        folder = weights_folder(preset)
        config = config_from_json(TransNormerConfig, read_config(folder), f"{folder}/config.json")
    else:
        config = TransNormerConfig.preset(preset)
    typer.echo(describe(config))


@bench.command("attention")
@says_what_is_wrong
def bench_attention():
    """The chunked form beside PyTorch's softmax attention, over length, on the CPU."""
    from transnormer_edu.bench import report

    for line in report():
        typer.echo(line)


@bench.command("kernels")
@says_what_is_wrong
def bench_kernels(
    out: Annotated[Path, typer.Option(help="Where the results go, as JSON.")] = Path(
        "build/kernels.json"
    ),
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="ours, pytorch_chunked, softmax_cudnn, softmax_flash, fla; again for more."
        ),
    ] = None,
):
    """The Triton kernels beside their peers: speed, memory, error. Needs a CUDA GPU."""
    from transnormer_edu.attention import linear_attention
    from transnormer_edu.lightning import triton_installed

    if not triton_installed():
        raise ImportError("bench kernels needs Triton, which exists for Linux, and a CUDA GPU")
    from transnormer_kernels.bench import main

    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = ["--only", *only] if only else []
    main(["--out", str(out), *chosen], peers={"pytorch_chunked": linear_attention})


def _given(**options):
    """Only what was asked for on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _trainer(from_, files, model, settings):
    """A trainer for a new run, for one to go on with, or for a new run from given weights."""
    import torch

    from transnormer_edu.data import load_corpus
    from transnormer_edu.run_folder import is_run
    from transnormer_edu.settings import TrainSettings
    from transnormer_edu.train import Trainer, load_trained, resume

    if from_ is not None and is_run(from_):
        others = files | model | {k: v for k, v in settings.items() if k != "steps"}
        _refuse_settled(others, from_, f"begin a new run from its weights: --from {from_ / 'best'}")
        return resume(from_, steps=settings.get("steps"))
    chosen = TrainSettings.from_dict(settings)
    corpus = load_corpus(files.get("data", "english"))
    torch.manual_seed(chosen.seed)
    if from_ is not None:
        _refuse_settled(model, from_, "begin a new run without --from")
        network, tokenizer = load_trained(from_)
    else:
        network, tokenizer = _new_model(corpus, **SMALL | model)
    return Trainer(network, tokenizer, corpus, chosen, files.get("out", Path("runs/small")))


def _refuse_settled(options, from_, advice):
    for name in options:
        raise ValueError(f"--{name.replace('_', '-')} is settled by {from_}: leave it, or {advice}")


def _new_model(corpus, kind, vocab_size, **sizes):
    from transnormer_edu.config import TransNormerConfig
    from transnormer_edu.model import TransNormerLLM
    from transnormer_edu.tokenizer import Tokenizer
    from transnormer_edu.transformer import Transformer, TransformerConfig

    if kind == Kind.softmax and "decay" in sizes:
        raise ValueError("--decay is of linear attention: leave it, or train --kind linear")
    texts = (document.text for document in corpus.train)
    tokenizer = Tokenizer.of_bytes() if vocab_size == 259 else Tokenizer.train(texts, vocab_size)
    sizes["vocab_size"] = tokenizer.vocab_size
    if kind == Kind.softmax:
        return Transformer(TransformerConfig(**sizes)), tokenizer
    return TransNormerLLM(TransNormerConfig(**sizes)), tokenizer


def _sample(model, tokenizer, prompt: str) -> str:
    from transnormer_edu.write import write_text

    text = "".join(write_text(model, tokenizer, prompt, 80, temperature=0.8, seed=0))
    return prompt + _printable(text)


def _printable(text: str) -> str:
    """Control characters, which a young model of bytes writes too, could upset the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


if __name__ == "__main__":
    app()
