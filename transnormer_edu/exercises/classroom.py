"""A course folder for nbgrader, from the same notebooks: `transnormer-edu classroom DIR`.

    DIR/nbgrader_config.py                           nbgrader's settings, for the teacher to change
    DIR/source/lesson_04/04_exercises.ipynb          one assignment a lesson, with its answers

What nbgrader makes of it (release, submitted, autograded, feedback) stands beside them. In each
notebook the answer of an exercise can be edited, its check is worth its points and is put back
before grading, and an open question waits for the teacher.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from transnormer_edu.atomic import whole_file
from transnormer_edu.course import CannotRun, need, project_root
from transnormer_edu.exercises.catalog import cards
from transnormer_edu.exercises.exercise import Card
from transnormer_edu.exercises.notebooks import CHECK, IN_CODE, IN_PROSE, sources

CONFIG = "nbgrader_config.py"
SETTINGS = '''"""nbgrader's settings for this course: change what you like, this file is yours."""

from transnormer_edu.exercises.nbgrader_steps import GRADE, RELEASE

c = get_config()  # noqa: F821 (nbgrader's)
c.CourseDirectory.course_id = "transnormer_edu"
c.GenerateAssignment.preprocessors = RELEASE  # cuts answers out; a stub says what to return
c.Autograde.autograde_preprocessors = GRADE  # judges each answer in a process of its own
c.OverwriteCells.add_missing_cells = True  # a check that somebody deleted comes back
# Students on the same machine can fetch and hand in through a folder that all of them can write:
# c.Exchange.root = "/srv/nbgrader/exchange"
'''
HEADING = re.compile(r"^## (\d+\.\d+) ", re.M)
LINK = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def make_classroom(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Write the course folder; yields (path, whether it changed). The settings are written once.

    Errors: ValueError for a folder that holds something else, or where nbgrader is missing.
    """
    try:
        need("nbgrader", extra="teach")
        root = project_root()
    except CannotRun as reason:
        raise ValueError(str(reason)) from None
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).exists():
        raise ValueError(
            f"{folder} holds other files and no {CONFIG}: name a new folder, or an empty one"
        )
    settings = folder / CONFIG
    yield settings, not settings.exists() and _write(settings, SETTINGS)
    for source in sources(root):
        notebook = nbformat.read(source, as_version=4)
        for_nbgrader(notebook, cards(source.name[:2]))
        path = folder / "source" / f"lesson_{source.name[:2]}" / source.name
        yield path, _write(path, nbformat.writes(notebook) + "\n")


def for_nbgrader(notebook: NotebookNode, by_number: dict[str, Card]) -> None:
    """Say in each cell's metadata what it is to nbgrader; links to lessons become plain words."""
    card = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = HEADING.search(cell.source)
            card = by_number[heading[1]] if heading else card
            cell.source = LINK.sub(r"\1", cell.source)
        role = _role(cell, card)
        if role:
            cell.metadata["nbgrader"] = {"schema_version": 3, "task": False, **role}


def _role(cell: NotebookNode, card: Card | None) -> dict | None:
    """An answer, a check with its points, an open question with its points, or what is fixed."""
    kind = dict(grade=False, solution=False, locked=False)
    if card is None:
        fixed = dict(locked=True, grade_id="imports")
        return kind | fixed if cell.cell_type == "code" else None
    name = card.number.replace(".", "-")
    if IN_CODE.search(cell.source):
        return kind | dict(solution=True, grade_id=f"answer-{name}")
    if cell.cell_type == "code" and CHECK.search(cell.source):
        return kind | dict(grade=True, locked=True, points=card.worth, grade_id=f"check-{name}")
    if IN_PROSE.search(cell.source):
        words = dict(grade=True, solution=True, points=card.worth, grade_id=f"words-{name}")
        return kind | words
    return None


def _write(path: Path, text: str) -> bool:
    """Write the file whole if that changes it."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text.encode())
    return True
