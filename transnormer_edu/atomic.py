"""Files that are there whole, or not at all.

A training run can be killed at any moment, also in the middle of writing its checkpoint. The cure
is old and short: write a neighbour, make sure that it is on the disk, then give it the real name.
The last step, `os.replace`, happens entirely or not at all, so whoever opens the file sees
yesterday's or today's, never half of one.

    with whole_file("runs/demo/checkpoint.pt") as file:
        torch.save(state, file)
    with whole_folder("runs/demo/best", last="model.safetensors") as part:
        write_the_model_into(part)
"""

import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from transnormer_edu import check

PART = ".part"  # in the neighbour's name: a file or folder of ours that bears it was never finished
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # no space, no quota, larger than is allowed


class DiskFull(OSError):
    """Nothing was changed: the file of that name is still the one that was there before."""

    def __str__(self) -> str:
        return self.strerror  # the sentence alone, without "[Errno 28]" before it


class _Witness:
    """A file that remembers why writing failed (torch.save turns every cause into RuntimeError)."""

    def __init__(self, file: BinaryIO):
        self.file, self.error = file, None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to; it takes the name `path` only once all of it is on the disk.

    Errors: DiskFull when there is no room; whatever else the body raises goes through unchanged. In
    both cases the unfinished neighbour is removed and an older file of that name stays as it was.
    """
    path = Path(path)
    part = path.with_name(path.name + PART)
    with room_or_a_sentence(path):
        try:
            with open(part, "wb") as file:
                witness = _Witness(file)
                try:
                    yield witness
                except Exception as error:
                    raise witness.error or error from error
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name, but empty
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """`text` as a whole UTF-8 file, with the same line ends on every system."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def whole_folder(
    folder: str | Path, *, last: str, seal: str | None = None, mixable: bool = True
) -> Iterator[Path]:
    """An empty folder to write into; its files take the name `folder` only once all are there.

    Where `folder` exists its files are replaced, the one named `last` at the end; `replace_folder`
    says how, and what `seal` and `mixable` are.

    Errors: NotADirectoryError where `folder` is a file; OSError, in one sentence, where it cannot
    be written. The unfinished neighbour is removed then, and an older folder stays as it was.
    """
    folder = check.path("folder", folder).resolve()  # a link may lead to another disk
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; expected a folder to write into")
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        near = folder if os.path.ismount(folder) else folder.parent  # on the same disk
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}{PART}.", dir=near))
        part.chmod(0o755)  # a private folder otherwise, and its name becomes `folder`
        yield part
        replace_folder(part, folder, last=last, seal=seal, mixable=mixable)
    except DiskFull:
        raise
    except OSError as error:
        raise OSError(
            f"could not write {folder} ({error}); is the disk full or read-only?"
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def replace_folder(
    part: str | Path,
    folder: str | Path,
    *,
    last: str,
    seal: str | None = None,
    mixable: bool = True,
) -> None:
    """Move the finished folder `part` to the name `folder`.

    No system renames a folder over a full one in a single step. So where `folder` exists, its files
    are replaced one by one, the file named `last` at the end: a killed process leaves a mixture.

    last      the weights
    seal      checksums of all others, which fit no mixture
    mixable   whether the others fit both the old and the new `last`, as config and tokenizer do
              during a run. Then the old seal goes away first, the new one comes last, and a mixture
              can be used; else the new one comes first, and by it a mixture is refused.
    """
    part, folder = Path(part), Path(folder)
    for file in part.iterdir():
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())
    if not folder.exists():
        os.replace(part, folder)
    else:
        if seal is not None and mixable:
            (folder / seal).unlink(missing_ok=True)
        order = lambda file: ((file.name == seal) is mixable, file.name == last, file.name)  # noqa: E731
        for file in sorted(part.iterdir(), key=order):
            os.replace(file, folder / file.name)
        part.rmdir()
    sync_folder(folder.parent)


@contextmanager
def whole_turn() -> Iterator[None]:
    """Hold back Ctrl-C until the body is done: a step, too, happens entirely or not at all."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    waiting = []
    before = signal.signal(signal.SIGINT, lambda *_: waiting.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt


def sweep(path: Path) -> None:
    """Remove what a killed process left unfinished beside `path`: neighbours of ours alone."""
    path.with_name(path.name + PART).unlink(missing_ok=True)
    for part in path.parent.glob(f".{path.name}{PART}.*"):
        shutil.rmtree(part)


def sync_folder(folder: Path) -> None:
    """Have the folder's list of names on the disk too (Windows cannot open folders: skipped)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def room_or_a_sentence(path: Path) -> Iterator[None]:
    """Turns the system's errors for a full disk into DiskFull; others go through."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFull(
            error.errno,
            f"there is no room to write {path.name} ({os.strerror(error.errno)}); nothing was "
            f"changed there: free some space, then go on from the last whole checkpoint",
            str(path),
        ) from error
