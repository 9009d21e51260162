"""make course: runs every lesson, writes pages that need no network, and says what went wrong."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from tests.notebooks.conftest import CONTRACT, FIGURE
from transnormer_edu import course
from transnormer_edu.notebook_run import execute


def test_lessons_become_pages(project, capsys):
    link = "[next](01_next.ipynb#here) [code](../transnormer_edu/decay.py) [paper](https://a.org/b)"
    project("00_start_here", CONTRACT + link, "print('hello')", FIGURE)
    project("01_next", "# Second", "1 + 1")
    before = {path: path.read_bytes() for path in project.root.glob("notebooks/*")}
    assert course.build_course(root=project.root) == 0
    assert before == {path: path.read_bytes() for path in project.root.glob("notebooks/*")}

    pages = project.root / "build" / "pages"
    page = (pages / "00_start_here.html").read_text()
    assert "hello" in page
    assert re.search(r'<div class="equation display">.*<svg .*<math display="block">', page)
    assert 'href="01_next.html#here"' in page
    assert 'href="../../transnormer_edu/decay.py"' in page
    assert 'href="https://a.org/b"' in page
    assert re.search(r"""alt=(["'])a (&quot;|")square(&quot;|")\1""", page)
    index = (pages / "index.html").read_text()
    assert "The first lesson" in index
    assert "12 min" in index
    assert (pages / "index.html").as_uri() in capsys.readouterr().out
    timing = json.loads((project.root / "build" / "lessons" / "timing.json").read_text())
    assert list(timing) == ["00_start_here", "01_next"]


def test_pages_fetch_nothing(project):
    project("00_start_here", CONTRACT, FIGURE, "import ipywidgets; ipywidgets.IntSlider()")
    course.build_course(root=project.root)
    page = (project.root / "build" / "pages" / "00_start_here.html").read_text()
    assert not re.search(r"""(src|srcset)\s*=\s*["']?(https?:)?//""", page)
    assert not re.search(r"<link[^>]+https?:|@import|import\(|<script[^>]+src", page)


def test_a_broken_lesson_is_named_and_the_others_still_run(project, capsys):
    project("00_start_here", "# One", "x = 1", "raise ValueError('the milk is sour')", "x")
    project("01_next", "# Two", "2 + 2")
    assert course.build_course(root=project.root) == 1
    said = capsys.readouterr().out
    assert "Lesson 00_start_here.ipynb, code cell 2 of 3: ValueError: the milk is sour" in said
    assert "    raise ValueError('the milk is sour')" in said
    assert "1 of 2 lessons" in said
    ran = nbformat.read(project.root / "build" / "lessons" / "01_next.ipynb", 4)
    assert ran.cells[1].outputs[0].data["text/plain"] == "4"


def test_a_broken_slider_is_an_error(project, capsys):
    slider = "from ipywidgets import interact\n_ = interact(lambda x: 1 / 0, x=(0, 4))"
    project("00_start_here", "1", slider, "2")
    assert course.build_course(root=project.root) == 1
    said = capsys.readouterr().out
    assert "code cell 2 of 3: inside a widget's function: ZeroDivisionError" in said


def test_a_killed_kernel_is_an_error(project):
    path = project("00_start_here", "import os", "os._exit(1)")
    failure = execute(path).failure
    assert failure.cell == 2
    assert "the Python process died" in failure.what


def test_an_endless_cell_is_an_error(project):
    path = project("00_start_here", "while True: pass")
    assert "time limit" in execute(path, timeout=2).failure.what


def test_a_silent_kernel_is_started_once_more(project, monkeypatch):
    monkeypatch.setattr("transnormer_edu.notebook_run.SILENT_SECONDS", 3)
    waits = "import time; open('ran', 'a').write('x'); time.sleep(8)"
    path = project("00_start_here", waits, "'then'")
    assert execute(path).failure is None
    assert (path.parent / "ran").read_text() == "xx"


def test_each_cell_may_be_silent_once(project, monkeypatch):
    """A message may be lost again, at another cell, when the notebook is run once more."""
    monkeypatch.setattr("transnormer_edu.notebook_run.SILENT_SECONDS", 3)
    waits = "import time; open('ran', 'a').write({!r}); time.sleep(6)"
    path = project("00_start_here", waits.format("a"), waits.format("b"))
    assert execute(path).failure is None
    assert (path.parent / "ran").read_text() == "aabab"


def test_a_working_kernel_is_not_silent(project, monkeypatch):
    monkeypatch.setattr("transnormer_edu.notebook_run.SILENT_SECONDS", 3)
    works = "import time; end = time.time() + 8\nwhile time.time() < end: pass"
    works = "open('ran', 'a').write('x')\n" + works
    path = project("00_start_here", works)
    assert execute(path).failure is None
    assert (path.parent / "ran").read_text() == "x"


def test_an_expected_error_is_none(project):
    path = project("00_start_here", "1 / 0", tags=["raises-exception"])
    assert execute(path).failure is None


def test_a_terminal_sees_which_lesson_which_cell_and_the_time(project, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    project("00_start_here", "1")
    project("01_next", "1", "import time; time.sleep(2.5)")
    course.build_course(root=project.root)
    said = sys.stderr.getvalue()
    assert "00_start_here, cell 1/1" in said
    seconds = {int(s) for s in re.findall(r"01_next, cell 2/2[^\r]* 00:(\d\d) so far", said)}
    assert len(seconds) >= 2, "the clock stands still while a cell runs"


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_the_kernel_too(project):
    path = project(
        "00_start_here",
        "import os, pathlib",
        "pathlib.Path('pid').write_text(str(os.getpid()))\nwhile True: pass",
    )
    code = f"from transnormer_edu.notebook_run import *; execute(Path({str(path)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    kernel = path.parent / "pid"
    wait_for(lambda: kernel.exists() and kernel.read_text())
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert said.strip().endswith("KeyboardInterrupt")
    assert "Kernel died" not in said
    wait_for(lambda: not is_alive(int(kernel.read_text())))


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def is_alive(process_number):
    try:
        os.kill(process_number, 0)
    except ProcessLookupError:
        return False
    return True


def test_only_some(project, capsys):
    project("00_start_here", "1")
    project("05_decay", "raise ValueError")
    assert course.build_course(["00"], root=project.root) == 0
    assert course.build_course(["07"], root=project.root) == 1
    expected = "there is no lesson '07': choose from 00_start_here, 05_decay."
    assert expected in capsys.readouterr().err


def test_nothing_of_an_earlier_run_remains(project):
    path = project("00_start_here", "1")
    course.build_course(root=project.root)
    path.write_text("not a notebook")
    with pytest.raises(nbformat.reader.NotJSONError):
        course.build_course(root=project.root)
    assert not list(project.root.glob("build/**/00_start_here*"))


def test_update_is_stable_to_the_byte(project):
    unstable = "from ipywidgets import interact\n_ = interact(lambda x: print(x), x=(0, 4))"
    path = project("00_start_here", CONTRACT, "object()", FIGURE, unstable, "1 / 3")
    assert course.update(["00"], root=project.root) == 0
    first = path.read_bytes()
    assert b"0x\xe2\x80\xa6" in first
    assert course.update(["00"], root=project.root) == 0
    assert path.read_bytes() == first


def test_update_leaves_a_broken_lesson_alone(project):
    path = project("00_start_here", "print('half')", "1 / 0")
    before = path.read_bytes()
    assert course.update(["00"], root=project.root) == 1
    assert path.read_bytes() == before


def test_without_a_checkout(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(course, "__file__", str(tmp_path / "site" / "package" / "course.py"))
    monkeypatch.chdir(tmp_path)
    assert course.build_course() == 1
    assert "no lessons here" in capsys.readouterr().err


def test_without_jupyter(project, monkeypatch, capsys):
    project("00_start_here", "1")
    monkeypatch.setattr(course, "find_spec", lambda name: None)
    assert course.build_course(root=project.root) == 1
    assert "pip install 'transnormer-edu[course]'" in capsys.readouterr().err


def test_lab_opens_the_first_lesson(project, monkeypatch):
    first = project("00_start_here", "1")
    calls = []
    monkeypatch.setattr(course.subprocess, "call", lambda command, cwd: calls.append(command) or 0)
    assert course.open_lab(root=project.root) == 0
    assert calls[0][:4] == [sys.executable, "-m", "jupyterlab", str(first)]
