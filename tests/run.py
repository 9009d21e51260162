"""What `make test` runs, part by part; `--all` adds the long parts of `make test-all`.

Every part runs, also after one has failed; the table at the end says how each went. A part can be
called alone: each prints its command.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = ["-m", "pytest", "-q"]
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
NBVAL = [*PYTEST, "--nbval", "--nbval-current-env", "notebooks"]

# (what it shows, arguments of this Python, what is set in its environment)
PARTS = [
    ("ruff: code and notebooks, what is wrong", ["-m", "ruff", "check", "."], {}),
    ("ruff: code and notebooks, how it is laid out", ["-m", "ruff", "format", "--check", "."], {}),
    ("imports run downwards only", ["-c", LINT_IMPORTS], {}),
    (
        "the package, the kernels and the tools",
        [
            *PYTEST,
            "-n",
            "2",
            "--dist",
            "loadfile",
            "-m",
            "not slow",
            "--durations=10",
            "--ignore=tests/browser",
        ],
        {"OMP_NUM_THREADS": "1"},  # two workers share what may be two processors
    ),
    ("the lessons, executed once (make course)", ["-m", "transnormer_edu.course"], {}),
    (
        "the lessons say what they said when they were committed (nbval on that run)",
        [*NBVAL, "--replay", "build/lessons"],
        {},
    ),
    ("the book, made of that run (make book)", ["-m", "transnormer_edu.book"], {}),
    (
        "the book and JupyterLab in a browser, where there is one",
        [*PYTEST, "-m", "not slow", "--durations=5", "tests/browser"],
        {},
    ),
]
LONG_PARTS = [
    (
        "what takes longer: a wheel in an empty environment, lesson 11 in JupyterLab, ...",
        [*PYTEST, "-m", "slow"],
        {},
    ),
    ("the lessons again, one thread", NBVAL, {"OMP_NUM_THREADS": "1"}),
    ("the lessons again, two threads", NBVAL, {"OMP_NUM_THREADS": "2"}),
    (
        "the lessons again, without the processor's vector instructions",
        NBVAL,
        {"ATEN_CPU_CAPABILITY": "default"},
    ),
]


def run_part(arguments: list[str], environment: dict[str, str]) -> bool:
    settings = [f"{name}={value}" for name, value in environment.items()]
    print(" ".join(["$", *settings, "python", *arguments]), flush=True)
    command = [sys.executable, *arguments]
    return subprocess.call(command, cwd=ROOT, env={**os.environ, **environment}) == 0


def main(everything: bool) -> int:
    parts = PARTS + (LONG_PARTS if everything else [])
    results = []
    for number, (title, arguments, environment) in enumerate(parts, start=1):
        print(f"\n=== {number} of {len(parts)}: {title}", flush=True)
        started = time.perf_counter()
        passed = run_part(arguments, environment)
        results.append((passed, time.perf_counter() - started, title))
    print("\n=== in short")
    for passed, seconds, title in results:
        print(f"{'ok    ' if passed else 'FAILED'} {seconds:7.1f} s  {title}")
    failed = sum(not passed for passed, _, _ in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--all", action="store_true", help="the long parts, too")
    sys.exit(main(parser.parse_args().all))
