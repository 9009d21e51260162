"""The commands `transnormer-edu bench train|decode|prefill`: their options.

Heavy modules are imported inside the functions, so that --help answers at once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="File of the rows, JSON; rows in it are kept.")]
Size = Annotated[
    str | None, typer.Option(help="A preset, or 2m; by default 385m on a GPU, 2m on a CPU.")
]
Models = Annotated[str, typer.Option(help="Of ours, twin and llama, with commas.")]
Contexts = Annotated[str | None, typer.Option(help="Lengths in tokens, with commas.")]
Device = Annotated[str, typer.Option(help="cuda or cpu; auto: a GPU where there is one.")]
Seconds = Annotated[float | None, typer.Option(help="Begin no row after so many.")]
Commit = Annotated[str | None, typer.Option(help="Of this code, where git does not know.")]
OUT = Path("build/speed.json")


def train(
    out: Out = OUT,
    size: Size = None,
    models: Models = "ours,twin,llama",
    contexts: Contexts = None,
    tokens: Annotated[int | None, typer.Option(help="Of each update, for all alike.")] = None,
    parts: Annotated[int, typer.Option(help="Passes whose gradients make an update.")] = 1,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compiled/--eager",
            help="torch.compile for each block, or not. A CPU needs a C++ compiler and minutes.",
            show_default="compiled on a GPU",
        ),
    ] = None,
    device: Device = "auto",
    seconds: Seconds = None,
    commit: Commit = None,
):
    """Training tokens per second and memory over the context, beside softmax models of the size."""
    from transnormer_edu.speed import training

    results, config, names = _begin(out, size, models, device, seconds, commit)
    kind = results.device.type
    contexts = _numbers(contexts) or training.CONTEXTS[kind]
    tokens = tokens or training.TOKENS[kind]
    compiled = kind == "cuda" if compiled is None else compiled
    _say(training.rows(results, config, names, contexts, tokens, parts, compiled))


def decode(
    out: Out = OUT,
    size: Size = None,
    models: Models = "ours,twin",
    contexts: Contexts = None,
    batch: Annotated[int | None, typer.Option(help="Rows decoded together.")] = None,
    batch_context: Annotated[int | None, typer.Option(help="What each of them has read.")] = None,
    device: Device = "auto",
    seconds: Seconds = None,
    commit: Commit = None,
):
    """Time per token after contexts of any length, really read, and of many rows together."""
    from transnormer_edu.speed import decoding

    results, config, names = _begin(out, size, models, device, seconds, commit)
    kind = results.device.type
    default = decoding.TOGETHER[kind]
    together = batch or default[0], batch_context or default[1]
    read = _numbers(contexts) or decoding.READ[kind]
    _say(decoding.rows(results, config, names, read, together))


def prefill(
    out: Out = OUT,
    size: Size = None,
    models: Models = "ours,twin",
    contexts: Contexts = None,
    device: Device = "auto",
    seconds: Seconds = None,
    commit: Commit = None,
):
    """Time until a prompt is read and its state kept, over its length."""
    from transnormer_edu.speed import prefill

    results, config, names = _begin(out, size, models, device, seconds, commit)
    contexts = _numbers(contexts) or prefill.CONTEXTS[results.device.type]
    _say(prefill.rows(results, config, names, contexts))


def _begin(out, size, models, device, seconds, commit):
    """The results' file, the size of ours, and the models that can run here."""
    from transnormer_edu.settings import TrainSettings
    from transnormer_edu.speed import contestants
    from transnormer_edu.speed.results import Results

    names = contestants.present(tuple(models.split(",")))
    found = TrainSettings(device=device).torch_device()
    size = size or ("385m" if found.type == "cuda" else "2m")
    config = contestants.size(size)
    return Results(out, found, size, seconds, commit), config, names


def _numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise ValueError(f"contexts is {text!r}, expected lengths such as 2048,8192")
    return numbers


def _say(lines: Iterator[str]) -> None:
    for line in lines:
        typer.echo(line)
