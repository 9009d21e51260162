"""`transnormer-edu exercises`: on notebook files, with answers, without, and broken ones."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from transnormer_edu.cli import app
from transnormer_edu.exercises.notebooks import sources
from transnormer_edu.exercises.terminal import check_notebook

ROOT = Path(__file__).parents[2]
SOLUTION = ROOT / "notebooks" / "solutions" / "04_exercises.ipynb"


def run(*arguments, status=0) -> str:
    result = CliRunner().invoke(app, ["exercises", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def notebook(tmp_path):
    """Change the solutions' cells, give back the file: notebook({'def decay_loop': source})."""

    def changed(cells: dict[str, str | None]) -> Path:
        path = Path(shutil.copy(SOLUTION, tmp_path))
        content = nbformat.read(path, as_version=4)
        for begins, source in cells.items():
            (cell,) = [c for c in content.cells if c.source.startswith(begins)]
            if source is None:
                content.cells.remove(cell)
            else:
                cell.source = source
        nbformat.write(content, path)
        return path

    return changed


def test_an_untouched_notebook_gets_nothing():
    said = run("check", "04", status=1)
    assert "04_exercises.ipynb: 0 of 13 points" in said
    assert said.count("NOT RIGHT") == 5
    assert "this is still to be written: return mask [head reader read-token]." in said


def test_one_broken_exercise_costs_only_its_own_points(notebook):
    path = notebook(
        {
            "def mask_of_decay": "def mask_of_decay(rate, n):\n    return rate +",
            "def decay_loop": "def decay_loop(*inputs):\n    import os\n    os._exit(1)",
            'check("4.1"': None,
        }
    )
    said = run("check", path, status=1)
    assert "4.1  NOT RIGHT\n     there is no check of it in this notebook" in said
    assert "4.2  NOT RIGHT\n     NameError" in said
    assert "4.3  right" in said
    assert "4.4  NOT RIGHT\n     4.4 could not be checked: your function ended the whole" in said
    assert "4.5  right" in said
    assert "7 of 13 points" in said


def test_a_check_is_found_however_it_is_written(notebook):
    path = notebook(
        {
            'check("4.1"': 'check("4.1", rate_of_half_life)  # mine',
            'check("4.2"': "check('4.2', mask_of_decay)  ",
            'check("4.3"': "check( 4.3 , rates_of_layer );",
            'check("4.4"': None,
            'check("4.5"': 'check("4.4", decay_loop)\ncheck("4.5", decay_in_chunks)',
        }
    )
    assert "13 of 13 points" in run("check", path)


def test_a_number_that_is_not_there_costs_nothing_else(notebook):
    said = run("check", notebook({'check("4.4"': 'check("99.1", decay_loop)'}), status=1)
    assert "4.3  right" in said and "4.4  NOT RIGHT" in said
    assert "99.1  NOT RIGHT\n     there is no exercise '99.1'" in said


def test_what_a_cell_defines_beside_its_check_is_there_after_a_crash(notebook):
    path = notebook(
        {
            'check("4.2"': 'def helper(x): return mask_of_decay(*x)\ncheck("4.2", mask_of_decay)',
            'check("4.3"': "import os; os._exit(1)",
            'check("4.4"': 'helper\ncheck("4.4", decay_loop)',
        }
    )
    said = run("check", path, status=1)
    assert "4.2  right" in said and "4.3  NOT RIGHT" in said and "4.4  right" in said


def test_only_the_real_check_counts(notebook):
    lie = 'def check(number, function):\n    print(f"{number} is right: it says so")'
    path = notebook(
        {
            "def rate_of_half_life": f"{lie}\n\ndef rate_of_half_life(tokens):\n    return tokens",
            'check("4.3"': 'print("4.3 is right: no")\ncheck("4.3", 1)',
        }
    )
    said = run("check", path, status=1)
    assert "4.1  NOT RIGHT" in said
    assert "4.2  right" in said
    assert "4.3  NOT RIGHT" in said


@pytest.mark.parametrize(
    "cell",
    [
        "import os\nos._exit(1)",
        "exit()",
        "while True:\n    pass",
        "while True:\n    try:\n        1\n    except:\n        pass",
    ],
)
def test_a_cell_that_ends_python_or_never_ends_costs_its_own_points(notebook, monkeypatch, cell):
    from transnormer_edu.exercises import grading

    monkeypatch.setattr(grading, "CELL_SECONDS", 2)
    said = run("check", notebook({"def decay_loop": cell}), status=1)
    assert "4.4  NOT RIGHT\n     NameError" in said
    assert "10 of 13 points" in said


DEVIOUS = """
import builtins
import transnormer_edu.exercises as e
e.check = e.ask = e.by_value = lambda *x, **y: b""
builtins.print = lambda *x, **y: None
def rate_of_half_life(tokens):
    return tokens
"""


def test_what_a_notebook_changes_in_the_checks_counts_for_nothing(notebook):
    said = run("check", notebook({"def rate_of_half_life": DEVIOUS}), status=1)
    assert "0 of 13 points" in said


def test_a_helper_beside_the_notebook_is_found(notebook):
    path = notebook({"def rate_of_half_life": "from helpers import rate_of_half_life"})
    helper = "import math\ndef rate_of_half_life(tokens):\n    return math.log(2) / tokens\n"
    (path.parent / "helpers.py").write_text(helper)
    assert "13 of 13 points" in run("check", path)


@pytest.mark.slow
@pytest.mark.parametrize("source", sources(ROOT), ids=lambda path: path.name)
def test_a_notebook_with_all_answers_takes_less_than_20_seconds(source):
    """Seconds of the processor, in all processes: a busy machine has no part in it."""
    before = os.times()
    assert all(result.right for result in check_notebook(source))
    after = os.times()
    used = sum(after[:4]) - sum(before[:4])
    print(f"{source.name}: {used:.1f} s")
    assert used < 20


def test_what_is_no_notebook_of_exercises(tmp_path, notebook):
    assert "no notebook '99' and no exercises of that lesson; there are" in run(
        "check", "99", status=1
    )
    text = tmp_path / "text.ipynb"
    for no in ("no notebook", "[]", '{"nbformat": 9, "cells": []}'):
        text.write_text(no)
        assert "is no notebook" in run("check", text, status=1)
    nbformat.write(nbformat.v4.new_notebook(), text)
    assert 'holds no check("4.2", my_function)' in run("check", text, status=1)


def test_prove_prints_the_kill_table(monkeypatch):
    from transnormer_edu.exercises import proof
    from transnormer_edu.exercises.catalog import find

    monkeypatch.setattr(proof, "of_lesson", lambda lesson: (find("4.1"), find("4.3")))
    assert "4.1   A rate for a half-life" in run("prove", "04")
    monkeypatch.setattr(proof, "judge", lambda *x: None)
    said = run("prove", "04", status=1)
    assert "'the fraction is upside down' passes (seed 0)" in said
    assert "the untouched stub passes" in said


def test_derive_says_what_it_wrote():
    assert "04_exercises.ipynb: unchanged" in run("derive")
