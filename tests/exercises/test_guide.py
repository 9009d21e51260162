"""The teacher's guide: its commands are run, and it speaks of every lesson."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "teacher_guide.md").read_text(encoding="utf-8")
LESSONS = [path.name[:2] for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash")


def block(first_line: str) -> str:
    """What stands in the block that begins with this line."""
    return re.search(rf"^```{first_line}\n(.*?)^```", GUIDE, re.M | re.S)[1]


def run(commands: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    said = run.stdout + run.stderr
    assert run.returncode == 0 and "Exception while loading config" not in said, said
    return said


def test_every_block_is_looked_at():
    assert re.findall(r"^```(\w.*)$", GUIDE, re.M) == ["sh", "python", "sh exchange"]


@needs_bash
def test_the_commands_run_from_the_folder_to_the_grades(tmp_path):
    run(block("sh"), tmp_path)
    course = tmp_path / "my_course"
    assert (course / "feedback/ada/lesson_01/01_exercises.html").stat().st_size > 1000
    grades = (course / "grades.csv").read_text().splitlines()
    student, _, _, _, *scores = grades[1].split(",")[3:]
    assert len(grades) == 2
    assert (student, scores) == ("ada", ["0.0", "0.0", "0.0", "16.0"])


@needs_bash
@pytest.mark.slow
def test_the_exchange_on_one_machine(tmp_path):
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    exchange.chmod(0o777)
    run("transnormer-edu classroom my_course", tmp_path)
    course = tmp_path / "my_course"
    settings = course / "nbgrader_config.py"
    text = settings.read_text()
    given = 'c.Exchange.root = "/srv/nbgrader/exchange"'
    assert f"# {given}" in text
    settings.write_text(text.replace(f"# {given}", f"c.Exchange.root = {str(exchange)!r}"))
    shutil.copy(settings, tmp_path)  # the student's, at home
    release, _, collect, feedback = block("sh exchange").splitlines()
    run(f"nbgrader generate_assignment lesson_01\n{release}", course)
    fetch = re.search(r"`(nbgrader fetch_assignment[^`]*)`", GUIDE)[1]
    submit = re.search(r"`(nbgrader submit[^`]*)`", GUIDE)[1].replace("\n", " ")
    run(f"{fetch}\n{submit}", tmp_path)
    run(f"{collect}\nnbgrader autograde lesson_01\nnbgrader generate_feedback lesson_01", course)
    run(feedback, course)
    assert len(list((course / "autograded").rglob("01_exercises.ipynb"))) == 1


def test_the_hub_gives_each_student_the_name_by_which_numbers_are_drawn():
    from types import SimpleNamespace

    from transnormer_edu.exercises import STUDENT

    c = SimpleNamespace(Spawner=SimpleNamespace())
    exec(block("python"), {"c": c})
    ada = SimpleNamespace(user=SimpleNamespace(name="ada"))
    assert c.Spawner.environment[STUDENT](ada) == "ada"


def test_every_lesson_has_a_line_on_what_to_show_and_what_many_believe():
    shown = re.findall(r"^\| (\d\d) \| [^|]+ \| [^|]+ \|$", GUIDE, re.M)
    assert set(LESSONS) <= set(shown)


def test_the_places_that_it_names_in_lessons_are_there():
    import nbformat

    for lesson, project in re.findall(r"^\| (\d\d) \| ([^|]+) \|", GUIDE, re.M):
        if lesson not in LESSONS:
            continue
        (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
        cells = nbformat.read(path, as_version=4).cells
        headings = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for section in re.findall(r"section (\d+)", project):
            assert re.search(rf"^## {section} ", headings, re.M), (lesson, section)


def test_errata_stand_where_it_says():
    assert "[errata](../CHANGELOG.md)" in GUIDE
    assert "\n## Errata\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "docs/teacher_guide.md" in (ROOT / "README.md").read_text(encoding="utf-8")
