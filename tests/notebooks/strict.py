"""nbval's own comparison, and three rules on top of it.

A cell that was committed without having been run fails (nbval would pass it unseen). Every run
says, for each notebook, what share of the cells that print something was compared, and fails where
it is below 80 %: cells are exempted one by one, with the tag `nbval-ignore-output`. Exercises are
no lessons: they are made to stop at the first gap, and have tests of their own.
"""

import os
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

HERE = Path(__file__).parent
CELL_SECONDS = 900
FLOOR = 80  # per cent of a notebook's printing cells that are compared
NBVAL_DEFAULT_SECONDS = 2000
UNCOMPARED_MIMES = {
    "image/png",
    "image/jpeg",
    "application/vnd.jupyter.widget-view+json",
}


def pytest_configure(config):
    options = config.option
    if not options.nbval:
        return
    from transnormer_edu.notebook_run import ENVIRONMENT

    os.environ.update(ENVIRONMENT)  # kernels inherit it
    options.nbval_sanitize_with = options.nbval_sanitize_with or str(HERE / "sanitize.cfg")
    if options.nbval_cell_timeout == NBVAL_DEFAULT_SECONDS:
        options.nbval_cell_timeout = CELL_SECONDS


def pytest_ignore_collect(collection_path, config):
    is_exercise = "exercises" in collection_path.parts and collection_path.suffix == ".ipynb"
    return True if config.option.nbval and is_exercise else None


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.timeout(CELL_SECONDS + 60))  # nbval's own limit comes first
            if prints_something(item.cell.outputs):
                compared = item.options["check"] and not item.options["skip"]
                item.user_properties.append(("compared", compared))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if isinstance(item, IPyNbCell) and never_run(item.cell):
        command = f"python -m transnormer_edu.course --update {item.path.name}"
        item.raise_cell_error(f"this cell was committed without having been run: `{command}`")
    return result


def never_run(cell) -> bool:
    return cell.source.strip() != "" and cell.execution_count is None


def prints_something(outputs) -> bool:
    """True when an output holds anything that can be compared; a bare figure holds nothing."""
    for output in outputs:
        data = output.get("data")
        if data is None:
            return True
        seen = set(data) - UNCOMPARED_MIMES
        if "text/plain" in seen and len(seen) < len(data):
            seen -= {"text/plain"}  # <Figure size 640x480 with 1 Axes>, IntSlider(value=3)
        if seen:
            return True
    return False


def compared_cells(terminalreporter) -> dict[str, list[bool]]:
    """For each notebook, of each cell that prints: was its output compared?

    Reports carry this, so that it is also known when workers ran the cells.
    """
    compared = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call" and not getattr(report, "skipped", False):
                continue
            for key, value in getattr(report, "user_properties", []):
                if key == "compared":
                    compared.setdefault(report.nodeid.split("::")[0], []).append(value)
    return compared


def percent(values: list[bool]) -> int:
    return 100 * sum(values) // len(values)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    shares = map(percent, compared_cells(reporter).values()) if reporter else ()
    if session.exitstatus == pytest.ExitCode.OK and any(share < FLOOR for share in shares):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    compared = compared_cells(terminalreporter)
    if compared:
        terminalreporter.section("share of printing cells whose output is compared")
    for name, values in sorted(compared.items()):
        share = percent(values)
        too_few = "" if share >= FLOOR else f": FAILED, at least {FLOOR} % must be"
        terminalreporter.line(f"{name}: {sum(values)} of {len(values)} ({share} %){too_few}")
