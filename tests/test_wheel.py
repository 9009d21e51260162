"""A built wheel, installed outside the checkout: imports, the doctor, writing, no stray files."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"


def call(*command, cwd, status=0, **environment) -> str:
    """What the command prints; it has to end with this status."""
    # No PYTHONPATH: it could lead back into the checkout.
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    command = [str(part) for part in command]
    run = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    assert run.returncode == status, f"{' '.join(command)}\n{run.stdout}\n{run.stderr}"
    return run.stdout if status == 0 else run.stdout + run.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what git tracks: an old build/ folder must not find its way in."""
    copy = tmp_path_factory.mktemp("source")
    for name in call("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "notebooks/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    build = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", ".")
    call(sys.executable, *build, cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_wheel_holds_both_packages_and_the_weights(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = call("git", "ls-files", "transnormer_edu", "kernels/transnormer_kernels", cwd=ROOT)
    wanted = {name.removeprefix("kernels/") for name in tracked.splitlines()}
    assert wanted <= held, "tracked, but not in the wheel"
    top = {name.split("/")[0] for name in held if ".dist-info" not in name}
    assert top == {"transnormer_edu", "transnormer_kernels"}


def use_it(environment: Path, folder: Path):
    """What somebody does who only has the wheel."""
    python = environment / SCRIPTS / "python"
    command = environment / SCRIPTS / "transnormer-edu"
    where = "import {0}; print({0}.__file__)"
    for package in ("transnormer_edu", "transnormer_kernels"):
        if package == "transnormer_kernels" and sys.platform != "linux":
            continue
        assert str(environment) in call(python, "-c", where.format(package), cwd=folder)
    assert "PyTorch" in call(command, "doctor", cwd=folder)
    text = call(command, "generate", "The", "--max-new-tokens", "5", "--seed", "1", cwd=folder)
    assert text.startswith("The")
    assert len(text) > len("The\n")
    assert "Clone the project" in call(command, "course", cwd=folder, status=1)


def test_wheel_beside_the_packages_of_this_environment(wheel, tmp_path):
    """Quick: an empty environment that borrows torch and the rest from this one."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / SCRIPTS / "python"
    paths = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd="/")
    # A line in a .pth file adds the folder, but not the .pth files (editable installs) inside it.
    (Path(paths.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps")
    call(*install, "--ignore-installed", wheel, cwd=tmp_path)
    use_it(environment, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wheel_in_an_empty_environment(wheel, tmp_path):
    """As somebody installs it who has nothing: every dependency comes from the wheel's metadata."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / SCRIPTS / "python"
    constraints = ROOT / "constraints.txt"
    call(python, "-m", "pip", "install", "-c", constraints, wheel, cwd=tmp_path)
    use_it(environment, tmp_path)
