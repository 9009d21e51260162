"""The command `transnormer-edu`. Each command only reads its options and calls the package.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from transnormer_edu.ablate_command import ablate
from transnormer_edu.job import complain, is_first
from transnormer_edu.plan_command import plan
from transnormer_edu.speed_command import decode, prefill
from transnormer_edu.speed_command import train as bench_train
from transnormer_edu.train_command import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="TransNormerLLM on your own machine: the course, and a model you train and use.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
app.add_typer(bench, name="bench")
data = typer.Typer(no_args_is_help=True, help="Prepare text to learn from.")
app.add_typer(data, name="data")
exercises = typer.Typer(no_args_is_help=True, help="Check exercises; prove the checks.")
app.add_typer(exercises, name="exercises")


def says_what_is_wrong(command):
    """Turn an expected error into its one sentence and exit status 1, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        _write_utf8()
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:  # `| head`: click ends without a word
            raise
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            complain(f"transnormer-edu: {error}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            if is_first():
                typer.echo("\nstopped", err=True)
            raise typer.Exit(130) from None

    return wrapped


def _write_utf8() -> None:
    """Into a file or a pipe: Windows would take an encoding that has no λ."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.isatty() and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")


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
def book():
    """Make the book of lessons, exercises, symbols and modules, under build/book."""
    from transnormer_edu.book import build_book

    raise typer.Exit(build_book())


@app.command()
@says_what_is_wrong
def lab():
    """Open JupyterLab on the first lesson."""
    from transnormer_edu.course import open_lab

    raise typer.Exit(open_lab())


app.command()(says_what_is_wrong(train))
app.command()(says_what_is_wrong(ablate))
app.command()(says_what_is_wrong(plan))


@app.command()
@says_what_is_wrong
def export(
    run: Annotated[
        Path, typer.Argument(help="A run, or weights or a torchrun checkpoint that one wrote.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to make, for the weights.")],
):
    """Write the weights of a run in float16, to give away, with tokenizer and model card."""
    if (run / ".metadata").is_file():
        from transnormer_edu.parallel.checkpoints import export
    else:
        from transnormer_edu.run_folder import export

    export(run, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    typer.echo(f"wrote {folder} ({size / 1e6:.1f} MB)")


@app.command("eval")
@says_what_is_wrong
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A run, or a folder of weights.")],
    file: Annotated[Path, typer.Argument(help="A text file of yours.")],
    context: Annotated[int, typer.Option(help="Tokens that are read at once.")] = 256,
    carry_state: Annotated[
        bool,
        typer.Option(help="Read the text in one go: what was read is remembered."),
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
    temperature: Annotated[
        float, typer.Option(help="0: the likeliest token; 1: as the model says.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest, up to this share.")
    ] = 0.95,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
):
    """Let a model write; the text appears as it is written."""
    from transnormer_edu.train import load_trained
    from transnormer_edu.weights import small_model_folder
    from transnormer_edu.write import printable, write_text

    network, tokenizer = load_trained(model or small_model_folder())
    pieces = write_text(
        network, tokenizer, prompt, max_new_tokens,
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
    )  # fmt: skip
    typer.echo(prompt, nl=False)
    for piece in pieces:
        typer.echo(printable(piece), nl=False)
    typer.echo()


@app.command()
@says_what_is_wrong
def info(
    preset: Annotated[
        str, typer.Argument(help="385m 1b 3b 7b 13b 15b 65b 175b, or a model's folder.")
    ],
):
    """Shapes, parameters, memory and FLOPs of a published size, or of a folder's model."""
    from transnormer_edu.config import TransNormerConfig
    from transnormer_edu.info import describe
    from transnormer_edu.pretrained import config_of
    from transnormer_edu.run_folder import weights_folder

    if preset and Path(preset).is_dir():
        config = config_of(weights_folder(preset))
    else:
        config = TransNormerConfig.preset(preset)
    typer.echo(describe(config))


@data.command("prepare")
@says_what_is_wrong
def prepare_data(
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns in quotes; - is standard input."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make, for `train --data`.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A model's folder, to take its tokenizer.")
    ] = None,
    vocab_size: Annotated[
        int, typer.Option(help="Else: tokens, learned from the text; 259: single bytes.")
    ] = 2048,
):
    """Turn text of any size into one file of token ids, which training maps into memory."""
    from transnormer_edu.prepare import prepare
    from transnormer_edu.released_tokenizers import load_tokenizer

    given = load_tokenizer(tokenizer) if tokenizer else None
    made = prepare(sources, out, given, vocab_size, progress=True)
    typer.echo(made.describe())
    typer.echo(f"transnormer-edu train --data {out}")


@exercises.command("check")
@says_what_is_wrong
def check_exercises(
    notebooks: Annotated[
        list[str], typer.Argument(help="Notebooks: by lesson, 04, or files.", show_default=False)
    ],
):
    """Run a notebook of exercises and say, for each, whether it is right and what is wrong."""
    from transnormer_edu.course import need

    need("nbformat", "nbclient", "ipykernel")
    from transnormer_edu.exercises.terminal import find_notebook, report

    complete = True
    for name in notebooks:
        for line, right in report(find_notebook(name)):
            typer.echo(line)
            complete &= right
    if not complete:
        raise typer.Exit(1)


@exercises.command("prove")
@says_what_is_wrong
def prove_exercises(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="Only these, by number: 04 05. All by default.")
    ] = None,
):
    """Run all known mistakes and all right answers through the checks; print what was caught."""
    from transnormer_edu.exercises.proof import prove

    faults = 0
    for row in prove(lessons or None):
        typer.echo(row)
        faults += len(row.faults)
    if faults:
        raise typer.Exit(1)


@exercises.command("derive")
@says_what_is_wrong
def derive_exercises():
    """For authors: make notebooks/exercises anew from notebooks/solutions."""
    from transnormer_edu.course import project_root
    from transnormer_edu.exercises.notebooks import derive_all

    for path, changed in derive_all(project_root()):
        typer.echo(f"{path.name}: {'written' if changed else 'unchanged'}")


@app.command()
@says_what_is_wrong
def classroom(
    folder: Annotated[Path, typer.Argument(help="Course folder to make, or to bring up to date.")],
):
    """For teachers: make a course folder for nbgrader, with an assignment for each lesson."""
    from transnormer_edu.course import need

    need("nbformat", "nbgrader", extra="teach")
    from transnormer_edu.exercises.classroom import make_classroom

    for path, changed in make_classroom(folder):
        typer.echo(f"{path}: {'written' if changed else 'unchanged'}")
    typer.echo(f"cd {folder}; nbgrader generate_assignment lesson_01")


@app.command("import")
@says_what_is_wrong
def import_released(
    folder: Annotated[
        str, typer.Argument(help="A downloaded folder, or OpenNLPLab/NAME on Hugging Face's hub.")
    ],
    variant: Annotated[
        str | None, typer.Option(help="transnormerllm, transnormerllm2 or transnormerllm3.")
    ] = None,
    subfolder: Annotated[str | None, typer.Option(help="One of several revisions in it.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, ...; by default as stored.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What it is to go on from.")] = "Hello, my name is",
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 24,
):
    """What a released model's folder holds, what is assumed of it, and a first sentence."""
    from transnormer_edu.released_import import report

    choices = dict(variant=variant, subfolder=subfolder, dtype=dtype)
    for line in report(folder, **choices, prompt=prompt, max_new_tokens=max_new_tokens):
        typer.echo(line)


bench.command("train")(says_what_is_wrong(bench_train))
bench.command("decode")(says_what_is_wrong(decode))
bench.command("prefill")(says_what_is_wrong(prefill))


@bench.command("attention")
@says_what_is_wrong
def bench_attention():
    """Time of linear attention and of PyTorch's softmax attention over length, on the CPU."""
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
            help="Only ours, pytorch_chunked, softmax_cudnn, softmax_flash or fla; again for more."
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


if __name__ == "__main__":
    app()
