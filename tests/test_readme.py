"""Every command of the README is run: here, or by the part of `make test` that COVERED names."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transnormer_edu import front_page

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
# Commands that would run these tests inside these tests, or that never end.
COVERED = {
    "make course": "a part of tests/run.py",
    "make test": "runs this test",
    "python3 start.py course": "what make calls: test_make_is_a_thin_shell",
    "python3 start.py test": "what make calls: test_make_is_a_thin_shell",
    "make book": "a part of tests/run.py",
    "make lab": "test_course.py::test_lab_opens_the_first_lesson",
}
# No conda where the tests run; test_environment.py looks at what conda would read.
WITHOUT_CONDA = {
    "conda env create -f environment.yml",
    "conda activate transnormer-edu",
    "transnormer-edu course",
}

ANEW = "run python -m transnormer_edu.front_page"


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", text, re.M | re.S)


def readme_commands() -> list[str]:
    lines = "".join(blocks("sh")).splitlines()
    return [re.sub(r"\s+# .*", "", line).strip() for line in lines if line.strip()]


def test_every_block_is_looked_at():
    assert len(blocks("sh")) + len(blocks("python")) == len(blocks(""))
    assert set(COVERED) | WITHOUT_CONDA <= set(readme_commands()), "an exemption nobody needs"


@pytest.mark.parametrize(
    "command", [c for c in readme_commands() if c not in COVERED and c not in WITHOUT_CONDA]
)
def test_readme_command(command, tmp_path):
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(
        shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.strip()


@pytest.mark.parametrize("code", blocks("python"))
def test_readme_python(code, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "tests" / "data" / "released_small", tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    names = {"ids": torch.randint(3, 150, (2, 9)), "more": torch.randint(3, 150, (2, 4))}
    exec(compile(code, "README.md", "exec"), names)
    assert names["logits"].shape == (2, 4, 151)
    assert names["tokens"].shape == (2, 24)
    assert names["config"].dim == 1024


@pytest.mark.parametrize("page", ["README.md", front_page.GUIDE])
def test_tables_and_the_figures_words_are_those_of_lessons_and_exercises(page):
    text, made = (ROOT / page).read_text(encoding="utf-8"), front_page.pages(ROOT)[page]
    assert front_page.filled(text, made) == text, ANEW
    with pytest.raises(ValueError, match=f"no place <!-- {next(iter(made))} -->"):
        front_page.filled("", made)


def test_the_pictures_are_drawn_from_the_numbers_at_hand():
    for name, (figure, _) in front_page.pictures().items():
        drawn = (ROOT / front_page.FOLDER / name).read_bytes()
        assert drawn == front_page.svg(figure), ANEW


def test_every_link_and_picture_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
@pytest.mark.parametrize("target", ["course", "book", "lab", "test", "test-all", "setup"])
def test_make_is_a_thin_shell(target):
    command = ["make", "-n", "--no-print-directory", target]
    outside = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    run = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True)
    assert run.stdout.split() == ["python3", "start.py", target]
