"""Check a notebook of exercises from the terminal.

The notebook's cells are run in order, as in Jupyter, and a cell that fails does not keep the
others from running: each exercise is judged alone. In place of the notebook's own `check` the real
one is called, and a mark that nobody can guess is printed after it: another function of the name
`check`, or a line that only says "4.2 is right", counts for nothing.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from transnormer_edu.course import CannotRun, project_root
from transnormer_edu.exercises.catalog import find, of_lesson
from transnormer_edu.exercises.notebooks import CHECK

FIRST_SECONDS = 60  # the first cell imports PyTorch, on a machine that may be busy
CHECK_SECONDS = 30
CELL_SECONDS = 6


def find_notebook(name: str) -> Path:
    """The file of this name, or the exercises of the lesson with this number; ValueError."""
    if Path(name).is_file():
        return Path(name)
    try:
        folder = project_root() / "notebooks" / "exercises"
    except CannotRun as reason:
        raise ValueError(str(reason)) from None
    there = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    found = [path for path in there if path.name.startswith(f"{name}_")]
    if not found:
        known = ", ".join(path.name[:2] for path in there)
        raise ValueError(f"no notebook {name!r} and no exercises of that lesson; there are {known}")
    return found[0]


def report(path: Path) -> Iterator[tuple[str, bool]]:
    """The lines to print, and whether each speaks of something right."""
    results = check_notebook(path)
    for result in results:
        if result.right:
            yield f"{result.number}  right", True
        else:
            said = result.said.replace("\n", "\n     ")
            yield f"{result.number}  NOT RIGHT\n     {said}", False
    points, worth = sum(r.points for r in results), sum(find(r.number).worth for r in results)
    yield f"{path.name}: {points} of {worth} points", points == worth


@dataclass(frozen=True)
class Result:
    """One exercise of a notebook: right, or what was said."""

    number: str
    right: bool
    said: str

    @property
    def points(self) -> int:
        return find(self.number).worth if self.right else 0


def check_notebook(path: Path) -> list[Result]:
    """Run a notebook that holds exercises, and say how each of its checks went.

    Errors: ValueError where the file is no notebook or holds no check.
    """
    notebook, mark = _read(path), secrets.token_hex()
    asked, code = {}, [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        asked |= dict.fromkeys((number for number, _ in CHECK.findall(cell.source)), cell)
        cell.source = CHECK.sub(partial(_really, mark), cell.source)
    if not asked:
        raise ValueError(f'{path} holds no check("4.2", my_function)')
    client = NotebookClient(
        notebook,
        timeout_func=partial(_seconds, [cell.id for cell in asked.values()], code[0].id),
        interrupt_on_timeout=True,
        allow_errors=True,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    died = False
    try:
        client.execute()
    except DeadKernelError:
        died = True
    results = {number: _result(number, cell, mark, died) for number, cell in asked.items()}
    lessons = dict.fromkeys(number.split(".")[0].zfill(2) for number in results)
    numbers = [exercise.number for lesson in lessons for exercise in of_lesson(lesson)]
    gone = "there is no check of it in this notebook"
    return [results.get(number) or Result(number, False, gone) for number in numbers]


def _read(path: Path) -> NotebookNode:
    try:
        notebook = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is no notebook: {error}") from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _seconds(checks: list[str], first: str, cell: NotebookNode) -> int:
    """How long a cell may run: a hanging one should not keep the others waiting."""
    if cell.id in checks:
        return CHECK_SECONDS
    return FIRST_SECONDS if cell.id == first else CELL_SECONDS


def _really(mark: str, found: re.Match) -> str:
    """The line that calls the real check, whatever the notebook calls `check` or `print`."""
    number, function = found.groups()
    real = f'__import__("transnormer_edu.exercises").exercises.check("{number}", {function})'
    return f'{real}; __import__("builtins").print("{mark} {number}")'


def _result(number: str, cell: NotebookNode, mark: str, died: bool) -> Result:
    said = "".join(output.get("text", "") for output in cell.outputs)
    if f"{mark} {number}\n" in said:
        return Result(number, True, "")
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors:
        said = errors[0].evalue.removeprefix(f"{number} is not right yet.\n")
        kind = errors[0].ename
        return Result(number, False, said if kind == "Wrong" else f"{kind}: {said}")
    if cell.execution_count is None:
        why = "a cell before it ended the Python process" if died else "it was not run"
        return Result(number, False, why)
    return Result(number, False, "the check was interrupted")
