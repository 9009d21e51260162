"""A small project with lessons in it, for the tests of the tools that run lessons."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[2]
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


@pytest.fixture
def without_triton(tmp_path, monkeypatch):
    """`without_triton("08_kernel")` copies a lesson to where `import triton` fails.

    The copy lies in a folder of its own, `notebooks/`, with nothing of the repository beside it.
    """
    package = tmp_path / "shadow" / "triton"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('there is no Triton here')")
    roots = map(str, (package.parent, ROOT, ROOT / "kernels"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))

    def lesson(name):
        copy = tmp_path / "notebooks" / f"{name}.ipynb"
        copy.parent.mkdir(exist_ok=True)
        return Path(shutil.copy(ROOT / "notebooks" / copy.name, copy))

    return lesson
