"""A small project with lessons in it, for the tests of the tools that run lessons."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FIGURE = """
import matplotlib.pyplot as plt
from IPython.display import display
figure, axes = plt.subplots(figsize=(1, 1))
display(figure, metadata={"image/png": {"alt": 'a "square"'}})
plt.close(figure)
"""
CONTRACT = "# The *first* lesson\n\n**Time** 12 min reading.\n\n$$a = b \\tag{1}$$\n"


@pytest.fixture
def project(tmp_path):
    """`project("00_start_here", cell, ...)` writes a lesson; text that starts with # is prose."""

    def lesson(name, *sources, tags=()):
        cells = [
            new_markdown_cell(source, id=f"c{i}")
            if source.startswith("#")
            else new_code_cell(source, id=f"c{i}", metadata={"tags": list(tags)} if tags else {})
            for i, source in enumerate(sources)
        ]
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
        return path

    lesson.root = tmp_path
    return lesson
