"""The command `transnormer-edu ablate`: its options.

Heavy modules are imported inside the function, so that --help answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer


def ablate(
    out: Annotated[Path, typer.Option(help="Folder of the runs and their results.")] = Path(
        "runs/ablate"
    ),
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", help="Only this row; again for more. All by default."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens each run reads, once.")] = 30_000_000,
    tuning_tokens: Annotated[
        int, typer.Option(help="Tokens of each short run that tunes the learning rate.")
    ] = 4_000_000,
    jobs: Annotated[int, typer.Option(help="Rows trained at the same time.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(help="Begin no run after so many; call again to go on.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Fuse small operations first (for a GPU).")
    ] = False,
    commit: Annotated[
        str | None, typer.Option(help="Of this code, where git does not know.")
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Tiny models, to see that it works: a CPU will do.")
    ] = False,
):
    """The paper's ablations with models of 9 million parameters: some 12 minutes on an H200 with
    `--jobs 6 --compile`.

    Stopped or killed, it goes on where it was when it is called again.
    """
    from dataclasses import replace

    from transnormer_edu.ablate import SMALL, Protocol, ablate
    from transnormer_edu.ablation import CHOICES, report

    large = replace(Protocol(), tokens=tokens, tuning_tokens=tuning_tokens)
    protocol = SMALL if rehearse else large
    results = ablate(out, protocol, tuple(rows or CHOICES), jobs, minutes, compiled, commit)
    for line in report(results):
        typer.echo(line)
