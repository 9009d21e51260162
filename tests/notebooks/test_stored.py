"""A cell that cannot run here shows the output that is stored in its lesson."""

import nbformat

from transnormer_edu.notebook_run import execute

STORED = """
from transnormer_edu.stored_outputs import show_stored
show_stored("00_start_here.ipynb", tag="gpu")
"""


def shown(cell):
    """What a reader sees of a cell; a widget is live in one run and described in the other."""
    parts = []
    for output in cell.get("outputs", ()):
        data = {mime: x for mime, x in output.get("data", {}).items() if "widget" not in mime}
        parts.append((output.get("text"), data, output.get("metadata")))
    return parts


def with_stored(project, source, output):
    """A lesson whose second cell bears the tag `gpu` and a stored output."""
    path = project("00_start_here", STORED, source, "1 + 1")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["tags"] = ["gpu"]
    notebook.cells[1].outputs = [output]
    nbformat.write(notebook, path)
    return path


def test_a_tagged_cell_shows_its_stored_output_and_does_not_run(project):
    output = nbformat.v4.new_output("stream", name="stdout", text="stored\n")
    run = execute(with_stored(project, "print('run')\nraise ValueError", output))
    assert run.failure is None
    assert run.notebook.cells[1].outputs[0].text == "stored\n"
    assert run.notebook.cells[2].outputs[0].data["text/plain"] == "2"


def test_a_stored_figure_keeps_its_alternative_text(project):
    data, metadata = {"text/plain": "<figure>"}, {"image/png": {"alt": "a square"}}
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    run = execute(with_stored(project, "raise ValueError", output))
    assert shown(run.notebook.cells[1]) == [(None, data, metadata)]


def test_an_edited_cell_runs(project):
    output = nbformat.v4.new_output("stream", name="stdout", text="stored\n")
    path = with_stored(project, "print('run')", output)
    copy = path.with_name("copy.ipynb")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "print('edited')"
    nbformat.write(notebook, copy)
    assert execute(copy).notebook.cells[1].outputs[0].text == "edited\n"
