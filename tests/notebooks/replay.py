"""nbval on a recorded run: `pytest --nbval --replay build/lessons notebooks/`.

`make course` executes each lesson and records what the kernel said (NAME.run.json). This plugin
gives nbval a kernel that says the same again, cell by cell. Nothing of nbval's comparison
changes; without `--replay` the notebooks are executed as always.
"""

import json
from collections import deque
from pathlib import Path

import pytest
from nbval.plugin import IPyNbFile


def pytest_addoption(parser):
    parser.getgroup("nbval").addoption(
        "--replay", type=Path, help="folder with recorded runs; notebooks without one are executed"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    collected = yield
    folder = parent.config.option.replay
    if folder is None or not (folder / f"{file_path.stem}.run.json").exists():
        return collected
    return [
        ReplayedNotebook.from_parent(parent, path=file_path) if type(file) is IPyNbFile else file
        for file in collected
    ]


class ReplayedNotebook(IPyNbFile):
    def setup(self):
        record = self.config.option.replay / f"{self.path.stem}.run.json"
        self.kernel = RecordedKernel(json.loads(record.read_text(encoding="utf-8")))
        self.setup_sanitize_files()


class RecordedKernel:
    """What nbval asks of a kernel, answered from a record."""

    def __init__(self, record: dict):
        self.cells = deque(record["cells"])
        self.waiting = deque()  # iopub messages not yet fetched
        self.count = 0

    def execute_cell_input(self, source, allow_stdin=None):
        self.count += 1
        if source.strip():
            self._next_cell(source)
        self._say("status", {"execution_state": "idle"})
        return self.count

    def _next_cell(self, source):
        if not self.cells:
            raise RuntimeError("the recorded run did not reach this cell: an earlier one failed")
        cell = self.cells.popleft()
        if cell["source"] != source:
            raise RuntimeError("the recorded run is of another text: run `make course` again")
        for message in cell["messages"]:
            self._say(message["msg_type"], message["content"])

    def _say(self, kind, content):
        header = {"msg_id": self.count}
        self.waiting.append({"msg_type": kind, "content": content, "parent_header": header})

    def get_message(self, stream, timeout=None):
        return self.waiting.popleft()

    def await_reply(self, msg_id, timeout=None):
        """A record is finished: there is nothing to wait for."""

    def await_idle(self, parent_id, timeout):
        self.waiting.clear()

    def is_alive(self):
        return True

    def interrupt(self):
        """Nothing runs."""

    def stop(self):
        self.waiting.clear()
