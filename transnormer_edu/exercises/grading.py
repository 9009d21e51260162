"""Run a notebook of answers as one who grades it does: whatever one cell does, the next is run.

    client = Judging(notebook, ...)      a NotebookClient
    client.execute()
    client.verdicts                      {"4.2": (right, what was said)}

The notebook's process only hands the function over, and another one judges it: what the notebook
calls `check` or `print`, or has changed in PyTorch, counts for nothing. A cell that never ends, or
that ends Python, costs its own exercise: a new process runs the cells before it that went well.
"""

import re
import secrets
from contextlib import suppress
from functools import partial

from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellTimeoutError, DeadKernelError
from nbclient.util import ensure_async
from nbformat import NotebookNode
from nbformat.v4 import new_output
from traitlets import Bool, default

from transnormer_edu.exercises import Wrong, ask
from transnormer_edu.exercises.notebooks import CHECK

FIRST_SECONDS = 60  # the first cell imports PyTorch, on a machine that may be busy
CELL_SECONDS = 10


class Judging(NotebookClient):
    """Executes a notebook's cells in order; see above. `seed`: whose numbers a check draws."""

    allow_errors = Bool(True)
    interrupt_on_timeout = Bool(False)  # a loop may catch that: its process is replaced
    seed = 0

    @default("timeout_func")
    def _by_cell(self):
        return lambda cell: CELL_SECONDS if self.went_well else FIRST_SECONDS

    def reset_execution_trackers(self) -> None:
        super().reset_execution_trackers()
        self.verdicts, self.went_well, self.workers = {}, [], []
        self.mark = secrets.token_hex()  # nobody can guess it

    def finish(self) -> None:
        """End the process that checks."""
        while self.workers:
            self.workers.pop().stop()

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        source, code = cell.source, cell.cell_type == "code"
        if code:
            cell.source = CHECK.sub(partial(_hand_over, self.mark), source)
        try:
            await self._execute(cell, cell_index, *args, **kwargs)
        except DeadKernelError:
            await self._begin_again(cell, "this cell ended the whole Python process")
        except CellTimeoutError:
            seconds = self.timeout_func(cell)
            await self._begin_again(cell, f"this cell did not end within {seconds} s")
        cell.source = source
        well = code and not _error_of(cell)
        if code and CHECK.search(source):
            self._judge(cell)
        if well:  # what a cell defines is wanted again, its checks are not
            again = cell.copy()
            again.source = CHECK.sub("pass", source)
            self.went_well.append((again, cell_index))
        return cell

    execute_cell = run_sync(async_execute_cell)

    async def _execute(self, *arguments, **options) -> None:
        """Twice where Python was gone: the cell before may have ended it, after its last line."""
        try:
            await super().async_execute_cell(*arguments, **options)
        except DeadKernelError:
            await self._restart()
            await super().async_execute_cell(*arguments, **options)

    async def _begin_again(self, cell: NotebookNode, why: str) -> None:
        cell.outputs.append(_error("Stopped", why))
        await self._restart()

    async def _restart(self) -> None:
        """A new process, and in it what went well so far."""
        self.kc.stop_channels()
        await ensure_async(self.km.restart_kernel(now=True))
        await self.async_start_new_kernel_client()
        again, self.went_well = self.went_well, []  # the first may take its time once more
        for before, index in again:
            shown = self.nb.cells[index]
            with suppress(CellControlSignal, DeadKernelError):
                await super().async_execute_cell(before, index)
                self.went_well.append((before, index))
            self.nb.cells[index] = shown  # the run has put `before` there

    def _judge(self, cell: NotebookNode) -> None:
        """Judge what the cell has handed over; its outputs become what `check` would have said."""
        said = "".join(output.get("text", "") for output in cell.outputs)
        handed = dict(re.findall(rf"^{self.mark} (\S+) ([0-9a-f]+)$", said, re.M))
        error = _error_of(cell) or _error("Wrong", "the check was not reached")
        cell.outputs = []
        for number, _ in CHECK.findall(cell.source):
            if number in handed:
                output = self._verdict(number, bytes.fromhex(handed[number]))
            else:
                output = error
                self.verdicts[number] = False, f"{error.ename}: {error.evalue}"
            cell.outputs.append(output)

    def _verdict(self, number: str, function: bytes) -> NotebookNode:
        folder = self.resources.get("metadata", {}).get("path") or None
        try:
            title = ask(number, function, self.seed, self.workers, folder)
        except (Wrong, ValueError) as error:
            said = str(error).removeprefix(f"{number} is not right yet.\n")
            self.verdicts[number] = False, said
            return _error(type(error).__name__, str(error))
        self.verdicts[number] = True, title
        return new_output("stream", name="stdout", text=f"{number} is right: {title}\n")


def _hand_over(mark: str, check: re.Match) -> str:
    """The line that stands for a check: it prints the function."""
    number, function = check.groups()
    taken = f'__import__("transnormer_edu.exercises").exercises.by_value("{number}", {function})'
    return f'__import__("builtins").print("\\n{mark}", "{number}", {taken}.hex())'


def _error_of(cell: NotebookNode) -> NotebookNode | None:
    return next((output for output in cell.outputs if output.output_type == "error"), None)


def _error(name: str, said: str) -> NotebookNode:
    return new_output("error", ename=name, evalue=said, traceback=[f"{name}: {said}"])
