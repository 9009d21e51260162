"""Check a notebook of exercises from the terminal.

The notebook's cells are run in order, as in Jupyter, and a cell that fails does not keep the
others from running: each exercise is judged alone (see `grading`).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from transnormer_edu.course import CannotRun, project_root
from transnormer_edu.exercises import STUDENT, catalog, seed_of
from transnormer_edu.exercises.catalog import find, of_lesson
from transnormer_edu.exercises.grading import Judging
from transnormer_edu.exercises.notebooks import checks


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
    points, worth = sum(r.points for r in results), sum(r.worth for r in results)
    yield f"{path.name}: {points} of {worth} points", points == worth


@dataclass(frozen=True)
class Result:
    """One exercise of a notebook: right, or what was said."""

    number: str
    right: bool
    said: str

    @property
    def worth(self) -> int:
        """Points to be had; none for a number that is no exercise's."""
        try:
            return find(self.number).worth
        except ValueError:
            return 0

    @property
    def points(self) -> int:
        return self.worth if self.right else 0


def check_notebook(path: Path) -> list[Result]:
    """Run a notebook that holds exercises, and say how each of its checks went.

    Errors: ValueError where the file is no notebook or holds no check.
    """
    notebook = _read(path)
    if not checks(notebook):
        raise ValueError(f'{path} holds no check("4.2", my_function)')
    client = Judging(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.seed = seed_of(os.environ.get(STUDENT, ""))
    try:
        client.execute()
    finally:
        client.finish()
    lessons = dict.fromkeys(number.split(".")[0].zfill(2) for number in client.verdicts)
    known = (lesson for lesson in lessons if lesson in catalog.lessons())
    numbers = [exercise.number for lesson in known for exercise in of_lesson(lesson)]
    numbers += [number for number in client.verdicts if number not in numbers]
    gone = False, "there is no check of it in this notebook"
    return [Result(number, *client.verdicts.get(number, gone)) for number in numbers]


def _read(path: Path) -> NotebookNode:
    try:
        notebook = nbformat.read(path, as_version=4)
    except OSError:
        raise
    except Exception as error:  # nbformat raises many kinds for what is no notebook
        raise ValueError(f"{path} is no notebook: {error}") from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook
