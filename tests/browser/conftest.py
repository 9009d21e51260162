"""JupyterLab on a copy of the lessons, the book, and a browser: as a reader has them.

All run on two processors, with settings of their own, and without a network.
"""

import functools
import html
import http.server
import os
import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.parse import urljoin

import nbformat
import psutil
import pytest

from transnormer_edu.course import lab_command

ROOT = Path(__file__).parents[2]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HARMLESS = "Could not restore the debugger state"  # JupyterLab, when a kernel is started anew
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="module")
def _two_processors():
    """What is started from here runs on two processors, where the system can be told so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def browser(_two_processors):
    """Chromium without a window, driven by playwright."""
    api = pytest.importorskip(
        "playwright.sync_api",
        reason="drives a browser: pip install -c constraints.txt -e '.[all,browser]'",
    )
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(
            "found no Chromium or Chrome: install one (Debian: apt install chromium), or put its "
            "path into the variable CHROMIUM"
        )
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[ALONE])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def book():
    """The address of the book, made now (what did not change is not made again), served locally."""
    from transnormer_edu.book import build_book

    assert build_book(root=ROOT) == 0
    folder = ROOT / "build" / "book" / "html"
    handler = functools.partial(_Quiet, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):  # the browser went on before the page had come
        pass


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def open_page(book, browser):
    """`open_page(place, size, scheme)`; a console's error or a request elsewhere fails the test."""
    contexts, wrong = [], []

    def open_one(place, size=DESKTOP, scheme="light", **more):
        context = browser.new_context(viewport=size, color_scheme=scheme, **more)
        contexts.append(context)
        page = context.new_page()
        page.bytes = Counter()  # of each address
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if local(r.url) else wrong.append(r.url))
        page.on("requestfailed", lambda r: None if gone(r) else wrong.append(r.url))
        page.on("response", lambda r: page.bytes.__setitem__(r.url, served_bytes(r)))
        page.goto(urljoin(book, place))
        return page

    def local(url):
        return url.startswith((book, "data:", "file:", "blob:"))

    def gone(request):  # a link was followed before everything had come
        return "ERR_ABORTED" in (request.failure or "")

    def served_bytes(response):
        if response.status >= 400:
            wrong.append(f"{response.status} {response.url}")
        return int(response.headers.get("content-length", 0))

    yield open_one
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="module")
def lab(_two_processors, browser, tmp_path_factory):
    """A running JupyterLab: `lab.address(name)` is where a lesson opens."""
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


class Lab:
    """JupyterLab on a copy of the lessons; what it writes stays in `folder`."""

    def __init__(self, folder: Path):
        copy_lessons(folder / "project")
        self.port, self.token = free_port(), secrets.token_hex()
        self.log = folder / "server.log"
        places = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
        own = {f"JUPYTER_{place}": str(folder / place.lower()) for place in places}
        own |= {f"JUPYTERLAB_{p}_DIR": str(folder / p) for p in ("SETTINGS", "WORKSPACES")}
        own |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
        command = [
            *lab_command(folder / "project"),
            *("--no-browser", f"--IdentityProvider.token={self.token}"),
            *("--ServerApp.ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0"),
            "--LabApp.expose_app_in_browser=True",  # the test runs cells by JupyterLab's commands
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]
        with self.log.open("w") as log:
            self.process = psutil.Popen(
                command,
                cwd=folder / "project",  # its root, as for `make lab`
                env={**os.environ, **own},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def address(self, lesson: str) -> str:
        return self.url(f"lab/tree/notebooks/{lesson}") + "&reset"

    def first_address(self) -> str:
        """Where a browser is sent that JupyterLab opens by itself."""
        (sends,) = (self.log.parent / "runtime_dir").glob("*file-to-run*-open.html")
        return html.unescape(re.search(r'href="(.+?)"', sends.read_text())[1])

    def url(self, place: str) -> str:
        return f"http://127.0.0.1:{self.port}/{place}?token={self.token}"

    def wait_until_ready(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url("api/status"), timeout=5)
                return
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.2)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def kernel_seconds(self) -> float:
        """Processor time, user and system, that the kernels have taken so far."""
        times = [kernel.cpu_times() for kernel in self.process.children(recursive=True)]
        return sum(t.user + t.system for t in times)

    def stop(self) -> None:
        kernels = self.process.children(recursive=True)
        self.process.terminate()  # it ends its kernels before itself
        _, alive = psutil.wait_procs([self.process, *kernels], timeout=20)
        for process in alive:
            process.kill()


@pytest.fixture
def lab_page(lab, browser):
    """A page for JupyterLab; an error in its console fails the test."""
    page, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.set_default_timeout(60_000)
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    page.evaluate("window.jupyterapp?.shell?.currentWidget?.sessionContext?.shutdown()")
    page.close()
    assert [said for said in wrong if HARMLESS not in said] == []


def wait_for_kernel(page, lesson: str = "") -> None:
    """Until the notebook in front is that of `lesson` and its kernel waits for work."""
    page.wait_for_function(
        """lesson => {
          const notebook = window.jupyterapp?.shell?.currentWidget;
          return notebook?.context?.path?.includes(lesson)
            && notebook.sessionContext?.session?.kernel?.status === "idle";
        }""",
        arg=lesson,
    )


def run_lesson(page, last: int | None = None) -> list[str]:
    """Run the notebook in front, or its cells up to `last`; the errors that then stand in it."""
    if last is None:
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    else:
        page.evaluate(RUN_ABOVE, last + 1)
    return page.evaluate(ERRORS)


RUN_ABOVE = """cell => {
  window.jupyterapp.shell.currentWidget.content.activeCellIndex = cell;
  return window.jupyterapp.commands.execute("notebook:run-all-above");
}"""


# A cell with the tag raises-exception shows an error on purpose.
ERRORS = """() => window.jupyterapp.shell.currentWidget.model.sharedModel.cells
  .filter(cell => !(cell.metadata.tags ?? []).includes("raises-exception"))
  .flatMap(cell => (cell.outputs ?? []).filter(output => output.output_type === "error"))
  .map(error => `${error.ename}: ${error.evalue}`)"""


def copy_lessons(folder: Path) -> None:
    """The lessons as they are before they run, and beside them what they read and link to."""
    for name in ("notebooks", "kernels", "transnormer_edu"):
        unwanted = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__", "weights")
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for path in folder.glob("notebooks/*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.pop("widgets", None)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        nbformat.write(notebook, path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
