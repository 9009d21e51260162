"""Run the lessons: `make course` is `build_course()`, `make lab` is `open_lab()`.

    python -m transnormer_edu.course               run every lesson, write build/pages/index.html
    python -m transnormer_edu.course 05 07         ... only these
    python -m transnormer_edu.course --update 05   run a lesson and keep its outputs in notebooks/
    python -m transnormer_edu.course --lab         open JupyterLab

A plain run never touches notebooks/: executed copies go to build/lessons, pages to build/pages.
`--update` is for authors; an unchanged lesson stays the same to the byte.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from transnormer_edu.atomic import whole_file, write_text

LESSONS = "[0-9][0-9]_*.ipynb"
FIRST = "00_start_here.ipynb"
BAR = "{desc} {bar} {percentage:3.0f} % of all cells, {elapsed} so far"  # no guess of the rest


class CannotRun(ValueError):
    """Something is missing; the message says what, and what to do."""


def build_course(only: list[str] | None = None, *, root: Path | None = None) -> int:
    """Execute the lessons (or those named in `only`), write pages; 0 when every cell ran."""
    try:
        root = root or project_root()
        need("nbclient", "nbconvert", "ipykernel", "py_mini_racer")
        return _build(choose(root / "notebooks", only), root)
    except CannotRun as reason:
        print(f"course: {reason}", file=sys.stderr)
        return 1


def update(only: list[str], *, root: Path | None = None) -> int:
    """Execute lessons and write their outputs into notebooks/; for authors."""
    try:
        root = root or project_root()
        need("nbclient", "ipykernel")
        paths = choose(root / "notebooks", only)
    except CannotRun as reason:
        print(f"course: {reason}", file=sys.stderr)
        return 1
    from nbformat import writes

    failures = 0
    for path, run in _execute_all(paths):
        if run.failure:
            failures += 1
            continue
        new = (writes(run.notebook) + "\n").encode()
        changed = new != path.read_bytes()
        if changed:
            with whole_file(path) as file:
                file.write(new)
        print(f"{path.name}: {'outputs written' if changed else 'unchanged'}")
    return 1 if failures else 0


def open_lab(*, root: Path | None = None) -> int:
    """Open JupyterLab on the first lesson; returns when it is closed."""
    try:
        root = root or project_root()
        need("jupyterlab")
    except CannotRun as reason:
        print(f"lab: {reason}", file=sys.stderr)
        return 1
    try:
        return subprocess.call(lab_command(root), cwd=root)
    except KeyboardInterrupt:
        return 0


def lab_command(root: Path) -> list[str]:
    """What opens JupyterLab on the first lesson; links from there reach the whole project."""
    command = [sys.executable, "-m", "jupyterlab", str(root / "notebooks" / FIRST)]
    command.append(f"--ServerApp.root_dir={root}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is often nobody else
    return command


def project_root() -> Path:
    """The checkout: where the package was installed from (`-e`), or else where we stand."""
    for folder in (Path(__file__).resolve().parents[1], Path.cwd()):
        if any((folder / "notebooks").glob(LESSONS)):
            return folder
    raise CannotRun(
        "no lessons here: an installed package holds the code but not the notebooks. "
        "Clone the project and call `make course` (or `python3 start.py course`) in it."
    )


def choose(notebooks: Path, only: list[str] | None) -> list[Path]:
    """The lessons in order; `only` names some by number, name or path."""
    lessons = sorted(notebooks.glob(LESSONS))
    if not only:
        return lessons
    chosen = []
    for wanted in only:
        if wanted.endswith(".ipynb") and Path(wanted).exists():
            chosen.append(Path(wanted).resolve())
            continue
        found = [lesson for lesson in lessons if _is_called(lesson, Path(wanted).name)]
        if not found:
            names = ", ".join(lesson.stem for lesson in lessons)
            raise CannotRun(f"there is no lesson '{wanted}': choose from {names}.")
        chosen += found
    return list(dict.fromkeys(chosen))


def _is_called(lesson: Path, name: str) -> bool:
    """By its number, "5" or "05", or its name, with .ipynb or without."""
    number, _, _ = lesson.stem.partition("_")
    return name in (lesson.name, lesson.stem) or (name.isdigit() and name.zfill(2) == number)


def need(*packages: str, extra: str = "course") -> None:
    """Errors: CannotRun, with what to do, for packages that are not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise CannotRun(
            f"{', '.join(missing)} not installed here: "
            f"`pip install 'transnormer-edu[{extra}]'` (`make` installs it by itself)."
        )


def _build(paths: list[Path], root: Path) -> int:
    from transnormer_edu import notebook_pages as pages

    executed, html = root / "build" / "lessons", root / "build" / "pages"
    for folder in (executed, html):
        folder.mkdir(parents=True, exist_ok=True)
    timing_file = executed / "timing.json"
    timing = _read_timing(timing_file)
    for path in paths:  # nothing of an earlier run may pass for this one
        timing.pop(path.stem, None)
        for old in (executed / path.name, executed / f"{path.stem}.run.json"):
            old.unlink(missing_ok=True)
        (html / f"{path.stem}.html").unlink(missing_ok=True)
    failures, started = 0, time.perf_counter()
    for path, run in _execute_all(paths):
        failures += run.failure is not None
        _store(run, executed / path.stem)
        pages.write_page(run.notebook, path.stem, root / "notebooks", html)
        timing[path.stem] = _timing(run, path.stem)
        write_text(timing_file, json.dumps(timing, indent=1, sort_keys=True) + "\n")
    index = pages.write_index(dict(sorted(timing.items())), html)
    _say_where(len(paths), failures, time.perf_counter() - started, index)
    return 1 if failures else 0


def _read_timing(path: Path) -> dict:
    """What earlier runs took; nothing where there was none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _store(run, stem: Path) -> None:
    from nbformat import writes

    write_text(stem.with_suffix(".ipynb"), writes(run.notebook) + "\n")
    write_text(stem.with_suffix(".run.json"), run.record())


def _timing(run, name: str) -> dict:
    from transnormer_edu import notebook_pages as pages

    return {
        "title": pages.title(run.notebook) or name,
        "minutes": pages.minutes_to_read(run.notebook),
        "seconds": round(sum(run.seconds.values()), 2),
        "cells": [round(seconds, 2) for _, seconds in sorted(run.seconds.items())],
        "ok": run.failure is None,
    }


def _say_where(lessons: int, failures: int, seconds: float, index: Path) -> None:
    print(f"\n{lessons - failures} of {lessons} lessons ran without an error, {seconds:.0f} s.")
    print(f"Read them:       {index.resolve().as_uri()}")
    print("Run them live:   make lab      (or: python3 start.py lab)")


def _execute_all(paths: list[Path]):
    """Execute one lesson after the other under one progress bar; yields (path, run)."""
    from nbformat import read

    from transnormer_edu.notebook_run import code_cells, execute

    cells = {path: len(code_cells(read(path, as_version=4))) for path in paths}
    # disable=None: a bar on a terminal, only the line per lesson in a log
    with tqdm(total=sum(cells.values()), bar_format=BAR, disable=None, leave=False) as bar:
        for path in paths:
            before = bar.n

            def show(number, ticking, path=path, before=before):
                if not ticking:
                    bar.set_description_str(f"{path.stem}, cell {number}/{cells[path]}", False)
                    bar.n = before + number - 1
                bar.refresh()

            started = time.perf_counter()
            run = execute(path, on_cell=show)
            bar.n = before + cells[path]
            seconds = time.perf_counter() - started
            state = "FAILED" if run.failure else "ok"
            tqdm.write(f"{path.stem:<28} {cells[path]:>3} cells {seconds:>6.1f} s  {state}")
            if run.failure:
                tqdm.write(_explain(path, cells[path], run.failure))
            yield path, run


def _explain(path: Path, cells: int, failure) -> str:
    source = "\n".join(f"    {line}" for line in failure.source.splitlines())
    return (
        f"\nLesson {path.name}, code cell {failure.cell} of {cells}: {failure.what}\n"
        f"The cell:\n{source}\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m transnormer_edu.course", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "lessons", nargs="*", help="numbers, names or paths; all when none is given"
    )
    parser.add_argument("--update", action="store_true", help="write the outputs into notebooks/")
    parser.add_argument("--lab", action="store_true", help="open JupyterLab instead")
    options = parser.parse_args(arguments)
    if options.lab:
        return open_lab()
    return (update if options.update else build_course)(options.lessons)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ncourse: interrupted.")
