"""start.py: what it says when something is missing, and that it does its work once."""

import importlib.util
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start.py as a module, for a project in an empty folder; commands are noted, not run."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "ready")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "python")
    module.calls = []

    def note(*command):
        module.calls.append([str(part) for part in command])
        if "venv" in module.calls[-1]:
            module.VENV.mkdir(exist_ok=True)
            module.PYTHON.touch()
        return 0

    monkeypatch.setattr(module, "run", note)
    return module


def tools(start) -> list[str]:
    """Of the noted commands, which tool each called."""
    return [call[call.index("-m") + 1] for call in start.calls]


def test_sets_up_once(start):
    start.main(["course"])
    assert tools(start) == ["venv", "pip", "transnormer_edu.course"]
    start.calls.clear()
    start.main(["course"])
    assert tools(start) == ["transnormer_edu.course"]


def test_changed_dependencies_are_installed(start):
    start.main(["setup"])
    (start.ROOT / "constraints.txt").write_text("other")
    start.calls.clear()
    start.main(["setup"])
    assert "pip" in tools(start)


def test_interrupted_install_is_taken_up_again(start, monkeypatch):
    whole = start.run
    monkeypatch.setattr(start, "run", lambda *c: whole(*c) or int("pip" in c))
    with pytest.raises(start.CannotStart, match="goes on where it stopped"):
        start.main(["course"])
    assert not start.STAMP.exists()
    monkeypatch.setattr(start, "run", whole)
    start.main(["course"])
    assert start.is_ready()


def test_further_arguments_reach_the_command(start):
    start.main(["course", "05"])
    assert start.calls[-1][-1] == "05"


def test_exit_code_is_that_of_the_command(start, monkeypatch):
    start.main(["setup"])
    monkeypatch.setattr(start, "run", lambda *command: 7)
    assert start.main(["test"]) == 7


def test_old_python(start, monkeypatch):
    monkeypatch.setattr(start.sys, "version_info", (3, 10, 13))
    with pytest.raises(start.CannotStart, match=r"the course needs 3\.11 or later"):
        start.main(["course"])


@pytest.mark.parametrize("options", ["", "--clear ", "--without-pip --copies "])
def test_a_folder_that_was_renamed(start, tmp_path, options):
    """Its .venv runs, but the commands in it still name the old place."""
    start.VENV.mkdir()
    notes = start.VENV / "pyvenv.cfg"
    for place, moved in ((tmp_path / "old name" / ".venv", True), (start.VENV, False)):
        notes.write_text(f"version = 3.11\ncommand = /usr/bin/python3 -m venv {options}{place}\n")
        assert start.venv_was_moved() is moved
    notes.write_text("uv = 0.13\n")  # made by another tool: nothing is known
    assert not start.venv_was_moved()


def test_no_venv(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(start.CannotStart, match=r"apt install python3\.\d+-venv"):
        start.main(["course"])


def test_intel_mac(start, monkeypatch):
    monkeypatch.setattr(start.sys, "platform", "darwin")
    monkeypatch.setattr(start.platform, "machine", lambda: "x86_64")
    with pytest.raises(start.CannotStart, match="no packages for Intel Macs .* Linux container"):
        start.main(["course"])


@pytest.mark.parametrize("version, fits", [("13.7.1", False), ("14.0", True), ("26.1", True)])
def test_old_mac(start, monkeypatch, version, fits):
    monkeypatch.setattr(start.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(start.platform, "mac_ver", lambda: (version, ("", "", ""), "arm64"))
    if fits:
        return start.check_mac()
    with pytest.raises(start.CannotStart, match="this is macOS 13.7.1, .* need 14 or later"):
        start.check_mac()


def test_full_disk(start, monkeypatch):
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: Usage(9, 9, 1e8))
    with pytest.raises(start.CannotStart, match=r"0\.1 GB are free"):
        start.main(["course"])


def test_unknown_command(start):
    with pytest.raises(start.CannotStart, match="no command 'curse'"):
        start.main(["curse"])


def test_help_needs_no_setup():
    run = subprocess.run([sys.executable, ROOT / "start.py"], capture_output=True, text=True)
    assert run.returncode == 0
    assert "python3 start.py course" in run.stdout


def test_needs_the_standard_library_alone():
    """-S: without site-packages; -I: without anything from the surroundings."""
    command = [sys.executable, "-I", "-S", ROOT / "start.py", "curse"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "there is no command 'curse'" in run.stderr
