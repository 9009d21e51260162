#!/usr/bin/env python3
"""Set up the course and run one of its commands. Needs Python 3.11 or later, and nothing else.

    python3 start.py course      run the lessons and write them as pages
    python3 start.py book        make the book: lessons, exercises, symbols, modules
    python3 start.py lab         open the lessons in JupyterLab
    python3 start.py test        run every test
    python3 start.py test-all    ... and the long ones
    python3 start.py setup       only set up

The first call makes a virtual environment in .venv and installs everything into it (minutes).
Later calls find it ready and start at once. It can be interrupted and called again at any time.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "ready"  # holds a fingerprint of what was installed; written last
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST = (3, 11)
OLDEST_MACOS = 14  # of PyTorch's packages for Apple's processors
DISK_GB = 3  # what the install needs at least; with CUDA about three times that

COMMANDS = {
    "course": ["-m", "transnormer_edu.course"],
    "book": ["-m", "transnormer_edu.book"],
    "lab": ["-m", "transnormer_edu.course", "--lab"],
    "test": [str(ROOT / "tests" / "run.py")],
    "test-all": [str(ROOT / "tests" / "run.py"), "--all"],
    "setup": None,
}


class CannotStart(Exception):
    """Something on this machine is in the way; the message says what, and how to mend it."""


def check_machine():
    """Say in one sentence what is missing, before pip says it in fifty lines."""
    version = platform.python_version()
    if sys.version_info < OLDEST:
        raise CannotStart(
            f"this is Python {version}, the course needs 3.11 or later: "
            "install one and call it by name, for example `python3.12 start.py course`."
        )
    try:
        import ensurepip  # noqa: F401  (Debian and Ubuntu ship it in a package of its own)
        import venv  # noqa: F401
    except ImportError:
        raise CannotStart(
            f"this Python {version} has no `venv` with pip: on Debian or Ubuntu "
            f"`sudo apt install python{version.rsplit('.', 1)[0]}-venv`, elsewhere install "
            "Python from python.org, then call this again."
        ) from None
    if sys.platform == "darwin":
        check_mac()
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_GB:
        raise CannotStart(
            f"{free:.1f} GB are free in {ROOT}, the packages need {DISK_GB} GB or more: "
            "free some, then call this again."
        )


def check_mac():
    if platform.machine() == "x86_64":
        raise CannotStart(
            "PyTorch has no packages for Intel Macs any more: run the course in a Linux container "
            "or on another computer. (If this Mac has Apple's processor, this Python runs under "
            "Rosetta: use an arm64 one.)"
        )
    version = platform.mac_ver()[0]
    if int(version.split(".")[0]) < OLDEST_MACOS:
        raise CannotStart(
            f"this is macOS {version}, PyTorch's pip packages need {OLDEST_MACOS} or later: "
            "update macOS, or run the course in a Linux container."
        )


def fingerprint():
    """What the environment depends on: the two files that say what to install, and the Python."""
    content = hashlib.sha256(sys.version.encode() + str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        content.update((ROOT / name).read_bytes())
    return content.hexdigest()


def is_ready():
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == fingerprint()


def run(*command):
    """Run a command in the project's folder, its output in view; give its exit code."""
    return subprocess.call([str(part) for part in command], cwd=ROOT)


def probe_venv():
    """Whether .venv runs this Python, and whether it has pip (what uv makes has none).

    It does not where there is none, one cut off half-way, or one of another or removed Python.
    """
    probe = (
        "import importlib.util as i, sys; print(bool(i.find_spec('pip'))); "
        "print(sys.prefix != sys.base_prefix, sys.version)"
    )
    try:
        answer = subprocess.run([str(PYTHON), "-c", probe], capture_output=True, text=True)
    except OSError:
        return False, False
    pip, _, python = answer.stdout.strip().partition("\n")
    return python == f"True {sys.version.strip()}", pip == "True"


def venv_was_moved():
    """True where the folder has another name than when .venv was made: its commands name the old.

    (`python -m venv` writes down how it was called; other tools' environments are left alone.)
    """
    notes = VENV / "pyvenv.cfg"
    text = notes.read_text(encoding="utf-8") if notes.exists() else ""
    made = re.search(r"^command = .* -m venv (?:--\S+ )*(.+)$", text, re.MULTILINE)
    return made is not None and Path(made[1]).resolve() != VENV.resolve()


def set_up():
    if is_ready():
        return
    check_machine()
    STAMP.unlink(missing_ok=True)
    runs, has_pip = probe_venv()
    if venv_was_moved() or not runs:
        print("Setting up (1 of 2): a virtual environment in .venv", flush=True)
        if run(sys.executable, "-m", "venv", "--clear", VENV):
            raise CannotStart("the virtual environment could not be made; the reason stands above.")
    elif not has_pip and run(PYTHON, "-m", "ensurepip", "--upgrade"):
        raise CannotStart(f"pip could not be put into {VENV}; the reason stands above.")
    print(
        "Setting up (2 of 2): packages, once. PyTorch is large: about 2 minutes without a GPU "
        "build, more on a slow line.",
        flush=True,
    )
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install")
    if run(*pip, "-c", "constraints.txt", "-e", ".[all]"):
        raise CannotStart(
            "pip could not install the packages; the reason stands above. "
            "Call this again when it is mended: it goes on where it stopped."
        )
    STAMP.write_text(fingerprint())


def main(arguments):
    if len(arguments) == 0 or arguments[0] in ("help", "-h", "--help"):
        print(__doc__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise CannotStart(f"there is no command '{name}': choose one of {', '.join(COMMANDS)}.")
    set_up()
    if COMMANDS[name] is None:
        print(f"Ready. Python of the course: {PYTHON}")
        return 0
    return run(PYTHON, *COMMANDS[name], *rest)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CannotStart as reason:
        sys.exit(f"start.py: {reason}")
    except KeyboardInterrupt:
        sys.exit("\nstart.py: interrupted. Calling it again goes on from here.")
