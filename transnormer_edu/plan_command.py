"""The command `transnormer-edu plan`: the page that it prints.

Heavy modules are imported inside the functions, so that --help answers at once.
"""

from typing import Annotated

import typer


def plan(
    preset: Annotated[str, typer.Argument(help="385m 1b 3b 7b 13b 15b 65b 175b.")],
    gpus: Annotated[int, typer.Option(help="How many.")] = 1,
    memory: Annotated[
        float, typer.Option(help="What of each GPU may be used, in GB of 10^9 bytes.")
    ] = 80.0,
    context: Annotated[int, typer.Option(help="Tokens in a text.")] = 8192,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Texts in one update.", show_default="one for each data rank"),
    ] = None,
):
    """Which mesh of GPUs a model can be trained on: memory by part, bytes sent by kind.

    Counted, not tried: bf16 beside float32 weights, AdamW, weights divided by FSDP. Nothing is
    built, and no GPU is needed.
    """
    from transnormer_edu.config import TransNormerConfig
    from transnormer_edu.parallel.plan import fitting

    config = TransNormerConfig.preset(preset)
    found = fitting(config, gpus, 1e9 * memory, context, batch_size)
    for line in page(found, 1e9 * memory):
        typer.echo(line)


def page(found, memory: float):
    """The best of the jobs in full, the others in a line each."""
    from transnormer_edu.parallel.plan import in_words, needs, tokens

    best, *others = found
    yield f"mesh      {in_words(best)}"
    yield (
        f"update    {best.rows:,} x {best.context:,} tokens: {tokens(best):,} in all, "
        f"{best.tokens:,} on each GPU"
    )
    yield from ("", *_memory(best, memory), "", *_messages(best))
    if others:
        yield from ("", "others that fit")
    for job in others:
        yield f"  {in_words(job):52} {needs(job) / 1e9:8.1f} GB"


def _memory(job, memory):
    """A row for each moment, a column for each part."""
    from transnormer_edu.parallel.memory import PARTS, moments, peak

    yield f"{'GB of each GPU':26}" + "".join(f"{part:>12}" for part in (*PARTS, "together"))
    for moment, parts in moments(job).items():
        sizes = [*parts.values(), sum(parts.values())]
        yield f"  {moment:24}" + "".join(f"{size / 1e9:12.2f}" for size in sizes)
    moment, parts = peak(job)
    yield f"largest   {sum(parts.values()) / 1e9:.1f} of {memory / 1e9:g} GB, {_when(moment)}"


def _when(moment):
    return f"at the {moment}" if moment == "loss" else f"in the {moment}"


def _messages(job):
    from transnormer_edu.info import scaled
    from transnormer_edu.parallel.traffic import messages

    yield "sent by each GPU in one update"
    for message in messages(job):
        if message.bytes:
            yield f"  {message.what:12} {message.operation:16} {scaled(message.bytes, 'B'):>10}"
