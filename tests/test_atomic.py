"""Files that are there whole or not at all, also when the process dies or the disk is full."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from transnormer_edu import atomic
from transnormer_edu.atomic import (
    DiskFull,
    replace_folder,
    sweep,
    whole_file,
    whole_folder,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "yesterday\n")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"tod")
        raise ZeroDivisionError
    assert path.read_text() == "yesterday\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_named_and_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "yesterday\n")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DiskFull, match=r"^there is no room to write a\.txt"):
        write_text(path, "today\n")
    assert path.read_text() == "yesterday\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_other_errors_keep_their_name(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "a.txt", "x")


# A process that dies, without a chance to tidy up, in its n-th call of os.replace. It loads
# atomic.py alone, since importing the package takes seconds.
DIES = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("atomic", sys.argv[1])
atomic = importlib.util.module_from_spec(spec); spec.loader.exec_module(atomic)
left, replace = int(sys.argv[4]), os.replace
def dying(a, b):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(a, b)
os.replace = dying
atomic.replace_folder(sys.argv[2], sys.argv[3], last="weights")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("replaced_before", [0, 1, 2, 3])
@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_has_old_or_new_weights_wherever_the_process_dies(
    tmp_path, exists, replaced_before
):
    part, folder = tmp_path / "best.part", tmp_path / "best"
    for path, age in ((part, "new"), (folder, "old"))[: 1 + exists]:
        path.mkdir()
        for name in ("a card", "weights", "z config"):
            (path / name).write_text(age)
    done = subprocess.run(
        [sys.executable, "-c", DIES, atomic.__file__, part, folder, str(replaced_before)],
        check=False,
    )
    needed = 3 if exists else 1
    assert done.returncode == (0 if replaced_before >= needed else -signal.SIGKILL)
    if not exists and done.returncode:
        assert not folder.exists()
        return
    ages = {p.name: p.read_text() for p in folder.iterdir()}
    assert ages.keys() == {"a card", "weights", "z config"}
    if ages["weights"] == "new":  # new weights only once everything else is new
        assert set(ages.values()) == {"new"}
    assert (ages["weights"] == "new") == (done.returncode == 0)


def test_a_folder_that_fails_leaves_the_old_one_and_nothing_else(tmp_path):
    folder = tmp_path / "best"
    for age in ("old", "new"):
        with whole_folder(folder, last="weights") as part:
            (part / "weights").write_text(age)
            assert part.parent == tmp_path and not (part / "card").exists()
    with pytest.raises(ZeroDivisionError), whole_folder(folder, last="weights") as part:
        (part / "weights").write_text("half")
        raise ZeroDivisionError
    sentence = "could not write .*best .*no such thing.* disk full"
    with pytest.raises(OSError, match=sentence), whole_folder(folder, last="weights"):
        raise OSError("no such thing")
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert (folder / "weights").read_text() == "new"
    sentence = "weights is a file; expected a folder"
    with (
        pytest.raises(NotADirectoryError, match=sentence),
        whole_folder(folder / "weights", last=""),
    ):
        pass


def test_only_what_is_ours_and_unfinished_is_swept(tmp_path):
    for name in (".best.part.x1", "best", "best.party", ".bestial.part.x1"):
        (tmp_path / name).mkdir()
    (tmp_path / "log.part").touch()
    sweep(tmp_path / "best")
    sweep(tmp_path / "log")
    assert {p.name for p in tmp_path.iterdir()} == {"best", "best.party", ".bestial.part.x1"}


def test_replace_folder_leaves_no_part(tmp_path):
    part = tmp_path / "best.part"
    part.mkdir()
    Path(part, "weights").write_text("new")
    replace_folder(part, tmp_path / "best", last="weights")
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced there")
def test_who_is_reading_the_old_file_goes_on_reading_it(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "yesterday\n")
    with open(path) as reader:
        write_text(path, "today\n")
        assert reader.read() == "yesterday\n"
    assert path.read_text() == "today\n"
