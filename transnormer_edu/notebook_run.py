"""Execute a notebook once, and keep everything that the run said.

`execute` gives back the executed notebook in a *stable form*: running an unchanged notebook again
gives the same bytes wherever its outputs are the same. Clock times, process numbers, memory
addresses and the random names of widgets are taken out or numbered.

The messages that the kernel sent are kept as well: the tests replay them (tests/notebooks), so
that a notebook is executed once and still compared output by output.
"""

import asyncio
import json
import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellTimeoutError, DeadKernelError

# What every run of a lesson shares; kernels inherit it. Nothing here changes a lesson's numbers.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",  # a progress bar's seconds are nobody's claim
    "SOURCE_DATE_EPOCH": "0",  # no date inside SVG figures
}
# A cell that runs for this long on less than a second of processor time waits for a message that
# was lost between Jupyter's processes (it happens once in some hundred runs).
SILENT_SECONDS = 60
WIDGETS = "application/vnd.jupyter.widget-state+json"
RANDOM_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
CELL_FILE = re.compile(r"\S*ipykernel_\d+[/\\](\d+)\.py")


class KernelSilent(Exception):
    """A cell neither ended nor worked; 0: before the first one."""

    def __init__(self, cell: int):
        super().__init__(cell)
        self.cell = cell


class LessonFailed(Exception):
    """A cell raised, hung, or killed the kernel: which one, its source, and what happened."""

    def __init__(self, cell: int, source: str, what: str):
        self.cell, self.source, self.what = cell, source, what
        super().__init__(f"cell {cell}: {what}")


@dataclass
class Run:
    """One execution: the notebook in stable form, the kernel's messages by cell, the seconds."""

    notebook: nbformat.NotebookNode
    messages: dict[int, list] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    failure: LessonFailed | None = None

    def record(self) -> str:
        """What the tests replay: for each executed code cell its source and its messages."""
        cells = [
            {"source": self.notebook.cells[i].source, "messages": messages}
            for i, messages in sorted(self.messages.items())
        ]
        return json.dumps({"cells": cells, "finished": self.failure is None}, indent=1)


class _RecordingClient(NotebookClient):
    """nbclient, which also keeps every message that shows something."""

    SHOWN = ("stream", "display_data", "execute_result", "update_display_data", "error")

    def __init__(self, *args, run: Run, **kwargs):
        super().__init__(*args, **kwargs)
        self.run = run

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] in self.SHOWN:
            kept = {"msg_type": msg["msg_type"], "content": msg["content"]}
            # through JSON now: nbclient goes on to change these very objects
            self.run.messages[cell_index].append(json.loads(json.dumps(kept, default=str)))
        return super().process_message(msg, cell, cell_index)


def execute(path: Path, *, folder: Path | None = None, timeout: int = 900, on_cell=None) -> Run:
    """Run the notebook at `path` in `folder` (its own by default). The file is not touched.

    `on_cell(number, ticking)` is called when a code cell starts (1, 2, ...; ticking False) and
    every second while it runs (ticking True). A failing cell ends the run: see `Run.failure`.
    """
    folder = folder or path.parent
    waits = set()  # cells that were silent once: should one really only wait, it is now waited for
    while True:
        try:
            run = _execute(path, folder, timeout, on_cell, waits)
        except KernelSilent as silent:
            waits.add(silent.cell)
            continue
        if run.failure and not run.messages and 0 not in waits:
            waits.add(0)  # no cell was reached: the kernel's port was just taken
            continue
        return run


def _execute(path: Path, folder: Path, timeout: int, on_cell, waits: set[int]) -> Run:
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    run = Run(notebook)
    client = _client(run, folder, timeout)
    code_numbers = {i: n for n, i in enumerate(_code_indices(notebook), start=1)}
    now = {"number": 0, "index": None, "started": 0.0}

    def starts(cell, cell_index, **_):
        now.update(number=code_numbers[cell_index], index=cell_index, started=time.perf_counter())
        run.messages[cell_index] = []
        if on_cell:
            on_cell(now["number"], False)

    def ends(cell, cell_index, **_):
        run.seconds[cell_index] = time.perf_counter() - now["started"]

    client.on_cell_execute, client.on_cell_executed = starts, ends
    tick = (lambda: on_cell(now["number"], True)) if on_cell else (lambda: None)
    try:
        asyncio.run(_run_with_clock(client, tick, lambda: now["number"], waits))
        _refuse_broken_callbacks(notebook)
    except (LessonFailed, CellControlSignal, RuntimeError) as error:
        source = notebook.cells[now["index"]].source if now["index"] is not None else ""
        run.failure = _failure(error, now["number"], source)
    stable_form(notebook)
    return run


def _client(run: Run, folder: Path, timeout: int) -> NotebookClient:
    return _RecordingClient(
        run.notebook,
        run=run,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=True,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )


async def _run_with_clock(client: NotebookClient, tick, cell, waits: set[int]) -> None:
    """`cell()`: the number of the one that runs; a silent one ends the run if not in `waits`."""
    run, silent = asyncio.current_task(), False

    async def clock():
        nonlocal silent
        worked, since, last = 0.0, time.monotonic(), None
        while True:
            await asyncio.sleep(1)
            tick()
            seconds = _processor_seconds(client)
            if seconds > worked + 1 or cell() in waits or cell() != last:
                worked, since, last = seconds, time.monotonic(), cell()
            elif time.monotonic() - since > SILENT_SECONDS:
                silent = True
                run.cancel()
                return

    def started(**_):  # nbclient's handler of Ctrl-C ends the kernel and then waits for it
        with suppress(NotImplementedError):  # Windows: it has set none
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    client.on_notebook_start = started
    ticking = asyncio.create_task(clock())
    try:
        await client.async_execute(env={**os.environ, **ENVIRONMENT})
    except (DeadKernelError, asyncio.CancelledError):
        if silent:
            run.uncancel()
            raise KernelSilent(cell()) from None
        if asyncio.current_task().cancelling():  # nbclient's name for Ctrl-C during a cell
            raise asyncio.CancelledError from None
        raise
    finally:
        ticking.cancel()


def _processor_seconds(client: NotebookClient) -> float:
    """What the kernel and its children have used of the processor so far."""
    try:
        kernel = psutil.Process(client.km.provisioner.process.pid)
        family = [kernel, *kernel.children(recursive=True)]
        used = ("user", "system", "children_user", "children_system")  # children that have ended
        times = [process.cpu_times() for process in family]
        return sum(getattr(one, name, 0.0) for one in times for name in used)
    except (AttributeError, psutil.Error):  # not started yet, or gone already
        return 0.0


def _failure(error: Exception, number: int, source: str) -> LessonFailed:
    if isinstance(error, LessonFailed):
        return error
    if isinstance(error, CellTimeoutError):
        what = "took longer than the time limit for one cell"
    elif isinstance(error, DeadKernelError):
        what = "the Python process died (out of memory? see `transnormer-edu doctor`)"
    elif isinstance(error, CellControlSignal):
        what = f"{error.ename}: {error.evalue}"
    else:
        what = f"the notebook could not be run: {error}"
    return LessonFailed(number, source, what)


def _refuse_broken_callbacks(notebook) -> None:
    """An exception inside a slider's function ends up in the widget's state, not in a cell."""
    for model in _widget_state(notebook).values():
        for output in model["state"].get("outputs") or []:
            if output.get("output_type") == "error":
                cell = _cell_showing(notebook, model)
                what = f"inside a widget's function: {output['ename']}: {output['evalue']}"
                raise LessonFailed(*cell, what)


def _cell_showing(notebook, model) -> tuple[int, str]:
    """(number, source) of the cell whose widget holds `model`; the last cell when none is found."""
    state = _widget_state(notebook)
    own_id = next(name for name, other in state.items() if other is model)
    holders = {own_id} | {name for name, other in state.items() if own_id in json.dumps(other)}
    cells = list(enumerate(code_cells(notebook), start=1))
    for number, cell in cells:
        if any(name in json.dumps(cell.outputs) for name in holders):
            return number, cell.source
    return cells[-1][0], cells[-1][1].source


def code_cells(notebook) -> list:
    return [notebook.cells[i] for i in _code_indices(notebook)]


def _code_indices(notebook) -> list[int]:
    return [
        i
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def _widget_state(notebook) -> dict:
    return notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})


# --- the stable form ------------------------------------------------------------------------------


def stable_form(notebook) -> None:
    """Take out, in place, what changes from run to run though nothing has changed."""
    notebook.metadata.pop("jupytext", None)  # how somebody edited it
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        for key in ("execution", "ExecuteTime", "collapsed"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            _stable_output(output, number)
    if _widget_state(notebook):
        _number_widgets(notebook)


def _stable_output(output, number: int) -> None:
    if output.output_type == "stream":
        output.text = _stable_text(output.text)
    data = output.get("data", {})
    if "text/plain" in data:
        data["text/plain"] = ADDRESS.sub("0x…", data["text/plain"])
    if "text/html" in data:  # matplotlib's animations name their elements by uuid4
        names = dict.fromkeys(RANDOM_ID.findall(data["text/html"]))
        for place, name in enumerate(names):
            data["text/html"] = data["text/html"].replace(name, f"{number:016x}{place:016x}")


def _stable_text(text: str) -> str:
    return CELL_FILE.sub(r"ipykernel/\1.py", ADDRESS.sub("0x…", text))


def _number_widgets(notebook) -> None:
    """Widget ids are uuid4: number them in the order of their first use; drop unused ones."""
    state = _widget_state(notebook)

    def named_in(thing) -> list[str]:
        text = json.dumps(thing, ensure_ascii=False, sort_keys=True)
        return [name for name in dict.fromkeys(RANDOM_ID.findall(text)) if name in state]

    order = named_in(notebook.cells)
    for name in order:  # the list grows while it is read: breadth first
        order += [other for other in named_in(state[name]) if other not in order]
    number = {name: f"{n:032x}" for n, name in enumerate(order)}

    def numbered(thing):
        text = json.dumps(thing, ensure_ascii=False)
        return json.loads(RANDOM_ID.sub(lambda m: number.get(m[0], m[0]), text))

    notebook.cells = nbformat.from_dict(numbered(notebook.cells))
    notebook.metadata["widgets"][WIDGETS]["state"] = {
        number[name]: numbered(state[name]) for name in order
    }
