"""A course folder and its students, as tests of nbgrader need them."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

ROOT = Path(__file__).parents[2]
# nbgrader calls the program alembic: found as in an activated environment.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


class Course:
    """A folder that `transnormer-edu classroom` has made."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.run("-m", "transnormer_edu", "classroom", str(folder), cwd=ROOT)

    def run(self, *arguments, cwd=None) -> str:
        command = [sys.executable, *arguments]
        run = subprocess.run(command, cwd=cwd or self.folder, capture_output=True, text=True)
        said = run.stdout + run.stderr
        assert run.returncode == 0, said
        assert "Exception while loading config" not in said, said
        return said

    def nbgrader(self, *arguments) -> str:
        return self.run("-m", "nbgrader", *arguments)

    def released(self, lesson: str) -> nbformat.NotebookNode:
        path = self.folder / "release" / f"lesson_{lesson}" / f"{lesson}_exercises.ipynb"
        return nbformat.read(path, as_version=4)

    def hand_in(self, student: str, lesson: str, change: Callable[[str, str], str]) -> None:
        """`change(id of an answer, its source in the solutions)` is what the student wrote."""
        notebook, answers = self.released(lesson), _answers(lesson)
        for cell in notebook.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name in answers:
                cell.source = change(name, answers[name]) or cell.source
        path = self.folder / "submitted" / student / f"lesson_{lesson}"
        path.mkdir(parents=True)
        nbformat.write(notebook, path / f"{lesson}_exercises.ipynb")

    def gradebook(self):
        return closing(Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}"))

    def grades(self, student: str, lesson: str) -> dict:
        """id of a check or question -> points, None where the teacher has not yet read it."""
        with self.gradebook() as book:
            notebook = f"{lesson}_exercises"
            submission = book.find_submission_notebook(notebook, f"lesson_{lesson}", student)
            return {
                grade.name: None if grade.needs_manual_grade else grade.score
                for grade in submission.grades
            }


def _answers(lesson: str) -> dict[str, str]:
    """The answers by the id that nbgrader knows them by."""
    from transnormer_edu.exercises.catalog import cards
    from transnormer_edu.exercises.classroom import for_nbgrader

    path = ROOT / "notebooks" / "solutions" / f"{lesson}_exercises.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for_nbgrader(notebook, cards(lesson))
    cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    return {cell.metadata.nbgrader.grade_id: cell.source for cell in cells}
