"""Run by torchrun: calls commands one after the other and writes what each process saw of them.

commands.py FOLDER: reads FOLDER/commands.json, a list of argument lists; writes FOLDER/seen<rank>.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from typer.testing import CliRunner

from transnormer_edu import job
from transnormer_edu.cli import app
from transnormer_edu.parallel import command


def main(folder):
    torch.set_num_threads(1)
    command.stop = dist.barrier  # several commands, one job
    job.PATIENCE = 0  # torchrun shall not end the others: what do they say?
    seen = []
    for arguments in json.loads((folder / "commands.json").read_text()):
        result = CliRunner().invoke(app, arguments)
        crash = result.exception if not isinstance(result.exception, SystemExit) else None
        seen.append([result.exit_code, result.stdout, result.stderr, repr(crash)])
    (folder / f"seen{dist.get_rank()}").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
