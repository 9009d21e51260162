"""The notebook tests can fail: nbval's strict comparison, executed and replayed, and our rules."""

import copy

import nbformat
import pytest

from tests.notebooks.conftest import FIGURE
from transnormer_edu.notebook_run import execute

pytest_plugins = ["pytester"]


@pytest.fixture
def nbval(project, pytester, monkeypatch):
    """Runs a pytest of its own over the project's lessons: (exit code, what it said)."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.chdir(project.root)
        plugins = ("-p", "tests.notebooks.strict", "-p", "tests.notebooks.replay")
        options = ("--nbval", "--nbval-current-env", "--color=no", *plugins, *arguments)
        result = pytester.runpytest_inprocess(*options, "notebooks")
        return result.ret, result.stdout.str() + result.stderr.str()

    return run


def commit_and_run(project, change=None, run_again=False):
    """Run the lesson, commit it with its outputs, perhaps changed by hand, and record the run."""
    (path,) = project.root.glob("notebooks/*.ipynb")
    run = execute(path)
    committed = copy.deepcopy(run.notebook)
    if change:
        change(committed.cells)
    nbformat.write(committed, path)
    record = project.root / "build" / "lessons" / f"{path.stem}.run.json"
    record.parent.mkdir(parents=True)
    record.write_text((execute(path) if run_again else run).record())


REPLAY = ("--replay", "build/lessons")
BOTH = pytest.mark.parametrize("how", [(), REPLAY], ids=["executed", "replayed"])


@BOTH
def test_an_unchanged_lesson_passes(project, nbval, how):
    warns = "import warnings; warnings.warn('careful')"
    slider = "from ipywidgets import interact\n_ = interact(lambda x: None, x=(0, 4))"
    project("00_start_here", "# Prose", "print('a')\nobject()", FIGURE, warns, slider, "")
    commit_and_run(project)
    code, said = nbval(*how)
    assert code == 0, said
    assert "notebooks/00_start_here.ipynb: 2 of 2 (100 %)" in said


@BOTH
def test_another_output_fails(project, nbval, how):
    project("00_start_here", "print('right')", "1")

    def change(cells):
        cells[0].outputs[0].text = "wrong\n"

    commit_and_run(project, change)
    code, said = nbval(*how)
    assert code == 1, said
    assert r"'wrong\n' == 'right\n'" in said
    assert "1 failed, 1 passed" in said


@BOTH
def test_a_cell_that_was_never_run_fails(project, nbval, how):
    project("00_start_here", "x = 1", "x")

    def change(cells):
        cells[1].update(execution_count=None, outputs=[])

    commit_and_run(project, change)
    code, said = nbval(*how)
    assert code == 1, said
    assert "committed without having been run" in said


def exempt(number):
    """A change that exempts so many cells from comparison."""

    def change(cells):
        for cell in cells[:number]:
            cell.metadata["tags"] = ["nbval-ignore-output"]

    return change


@BOTH
def test_an_exempted_cell_is_counted(project, nbval, how):
    project("00_start_here", "print(id(object()))", *["print(1)"] * 4)
    commit_and_run(project, exempt(1))
    code, said = nbval(*how)
    assert code == 0, said
    assert "4 of 5 (80 %)" in said


@BOTH
def test_too_many_exempted_cells_fail(project, nbval, how):
    project("00_start_here", *["print(id(object()))"] * 2, *["print(1)"] * 3)
    commit_and_run(project, exempt(2))
    code, said = nbval(*how)
    assert code == 1, said
    assert "3 of 5 (60 %): FAILED, at least 80 % must be" in said


@BOTH
def test_a_slider_that_fails_is_noticed(project, nbval, how):
    slider = "_ = interact(lambda x: 1 / 0 if broken else None, x=(0, 4))"
    project("00_start_here", "broken = False", f"from ipywidgets import interact\n{slider}")

    def change(cells):
        cells[0].source = "broken = True"

    commit_and_run(project, change, run_again=True)
    code, said = nbval(*how)
    assert code == 1, said
    assert "ZeroDivisionError" in said


def test_a_record_of_another_text_fails(project, nbval):
    project("00_start_here", "1")
    commit_and_run(project)
    project("00_start_here", "1 + 0")
    code, said = nbval(*REPLAY)
    assert code == 1, said
    assert "the recorded run is of another text" in said


def test_cells_after_a_failed_one_fail(project, nbval):
    project("00_start_here", "x = 1", "x")

    def change(cells):
        cells[0].source = "y = 1"

    commit_and_run(project, change, run_again=True)
    code, said = nbval(*REPLAY)
    assert code == 1, said
    assert "NameError" in said


def test_replay_executes_nothing(project, nbval):
    project("00_start_here", "from pathlib import Path", "Path('ran').touch()")
    commit_and_run(project)
    ran = project.root / "notebooks" / "ran"
    ran.unlink()
    code, said = nbval(*REPLAY)
    assert code == 0, said
    assert not ran.exists()
    code, said = nbval()
    assert code == 0, said
    assert ran.exists()
