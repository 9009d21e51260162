"""Dependencies stand once, in pyproject.toml; environment.yml and constraints.txt agree with it."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def direct_requirements() -> list[Requirement]:
    wanted = PROJECT["dependencies"] + [r for n, rs in EXTRAS.items() if n != "all" for r in rs]
    found = [Requirement(text) for text in wanted]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if re.match(r"[A-Za-z0-9]", line)]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pinned_version(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "==", f"{requirement} pins no exact version"
    return only.version


def test_environment_yml_leaves_everything_but_python_to_pyproject():
    plain = [line for line in CONDA["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in CONDA["dependencies"] if isinstance(line, dict)]
    assert {re.split("[=<>]", line)[0] for line in plain} == {"python", "pip"}
    assert pip == ["-c constraints.txt", "-e .[all]"]
    assert CONDA["name"] == PROJECT["name"]


def test_environment_yml_asks_for_a_python_that_the_project_allows():
    (python,) = [d for d in CONDA["dependencies"] if str(d).startswith("python=")]
    assert Version(python.split("=")[1]) in SpecifierSet(PROJECT["requires-python"])


def test_extra_all_holds_the_other_extras_but_the_large_one():
    """Setting up for `make test` does not wait for what few need."""
    (everything,) = [Requirement(text) for text in EXTRAS["all"]]
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(EXTRAS) - {"all", "eval"}


@pytest.mark.parametrize("requirement", direct_requirements(), ids=lambda r: r.name)
def test_every_dependency_is_pinned_inside_its_range(requirement):
    pin = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned_version(pin))
    assert (pin.marker is None) == (requirement.marker is None), "pinned for other platforms"


def test_pins_hold_for_anyone():
    text = (ROOT / "constraints.txt").read_text()
    assert "+" not in "".join(pinned_version(pin) for pin in pins().values()), "a local build"
    assert not re.search(r"https?:|index|find-links|file:|@", text), "names where it came from"


@pytest.mark.parametrize("name", ["torch", "numpy", "jupyterlab", "ipywidgets", "nbval", "ruff"])
def test_what_runs_here_is_what_is_pinned(name):
    assert Version(version(name)).public == pinned_version(pins()[name])


@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "macos", "windows"])
def test_the_pins_can_be_installed_on(platform, python, tmp_path):
    """Only asks which files exist; installs nothing. `--only-binary`: nobody has to compile."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml"),
        *("--extra", "all"),  # some of eval's are published as source alone
        *("--constraint", "constraints.txt", "--only-binary", ":all:"),
        *("--python-platform", platform, "--python-version", python),
        *("--no-header", "--no-annotate", "--output-file", str(tmp_path / "resolved.txt")),
    ]
    # PyTorch's wheels for Apple's processors want macOS 14.
    wanted = {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_PYTHON_DOWNLOADS": "never"}
    environment = {**os.environ, **wanted}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    resolved = (tmp_path / "resolved.txt").read_text()
    assert "torch==" in resolved
    assert ("triton==" in resolved) == (platform == "linux")
