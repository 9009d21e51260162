"""The exercises as notebooks: one source, and what is made from it.

notebooks/solutions/NN_exercises.ipynb   the source: texts, hints, answers, executed
notebooks/exercises/NN_exercises.ipynb   the same without the answers, made by `derive`

An answer stands between two lines, in code or in prose:

    ### BEGIN SOLUTION            <!-- BEGIN SOLUTION -->
    ...                           ...
    ### END SOLUTION              <!-- END SOLUTION -->

`derive` puts a line in its place that raises and says what has to come back. (These are the
marks that nbgrader knows.) A cell that is only `check("4.2", function)` is a check.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from transnormer_edu.exercises.catalog import find

IN_CODE = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.M | re.S)
IN_PROSE = re.compile(r"^<!-- BEGIN SOLUTION -->\n.*?^<!-- END SOLUTION -->$", re.M | re.S)
CHECK = re.compile(r"""^check\( *["']?(\d+\.\d+)["']? *, *(\w+) *\)[ \t]*;?[ \t]*(?:#.*)?$""", re.M)
ANSWER_HERE = "*Your answer:*"
WIDTH = 100


def sources(root: Path) -> list[Path]:
    return sorted((root / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))


def student_path(source: Path) -> Path:
    return source.parents[1] / "exercises" / source.name


def derive(source: Path) -> str:
    """The student's notebook, as the text of its file; the same source gives the same text."""
    return nbformat.writes(without_answers(nbformat.read(source, as_version=4))) + "\n"


def without_answers(notebook: NotebookNode) -> NotebookNode:
    """A notebook of answers, its answers and outputs taken out of it.

    Errors: ValueError for a mark of a solution that has no partner, or no check.
    """
    functions = {function: number for number, function in checks(notebook)}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = IN_CODE.sub(partial(_stub, cell.source, functions), cell.source)
        else:
            cell.source = IN_PROSE.sub(ANSWER_HERE, cell.source)
        if "SOLUTION" in cell.source:
            raise ValueError(f"a mark of a solution has no partner:\n{cell.source}")
    notebook.metadata.pop("widgets", None)
    return notebook


def checks(notebook: NotebookNode) -> list[tuple[str, str]]:
    """(number, function) of every check, in order."""
    code = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    return [pair for source in code for pair in CHECK.findall(source)]


def _stub(source: str, functions: dict[str, str], gap: re.Match) -> str:
    """One line that raises, laid out as `ruff format` would."""
    names = re.findall(r"^def (\w+)\(", source, re.M)
    number = next((functions[name] for name in names if name in functions), None)
    if number is None:
        raise ValueError(f"no check is made of what this cell defines:\n{source}")
    indent, said = gap[1], find(number).to_return()
    line = f'{indent}raise NotImplementedError("{said}")'
    if len(line) <= WIDTH:
        return line
    return f'{indent}raise NotImplementedError(\n{indent}    "{said}"\n{indent})'


def derive_all(root: Path) -> Iterator[tuple[Path, bool]]:
    """Write every student's notebook; yields (path, whether it changed)."""
    for source in sources(root):
        path, text = student_path(source), derive(source)
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        if changed:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        yield path, changed
