"""Text of any size, a piece at a time: files, folders, patterns, standard input.

    files = text_files(["books", "logs/**/*.txt", "-"])
    for piece in text_pieces(files):                      # never more than a piece in memory
        piece.text, piece.held_out

A piece is at most `PIECE` characters of one file. It ends before the last white space of a run,
where the byte-level tokenizers cut anyway: so the tokens of a file do not depend on the pieces (but
in a text so long without white space, which is cut between any two letters).
"""

import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from transnormer_edu import check

PIECE = 16_384  # characters
MOST_HELD_OUT = 500  # pieces, 8 MB: enough for an examination of any model
STDIN = "-"
HEAD = 4096  # bytes that tell whether a file in a folder is text
# Where a piece may end, best first: before the last line end of a blank line, of a line, a space.
BORDERS = [re.compile(mark) for mark in (r"(?<=\n)\n(?=\S)", r"\n(?=\S)", r" (?=\S)")]


class Piece(NamedTuple):
    """Some text of one file, and what stands around it.

    number     of the piece, counted through all files
    opens      a document begins with it: the file does, or what stood before is held out
    closes     a document ends with it
    held_out   not to be trained on
    """

    number: int
    text: str
    opens: bool
    closes: bool
    held_out: bool


def text_files(sources: Iterable[str | Path]) -> list[Path | str]:
    """The files that `sources` name, each once; "-" is standard input.

    A folder stands for all files in it and below that begin like text; a name with * ? or [ for
    all files that match, ** for any folders between.

    Errors: FileNotFoundError for a name or pattern without a file, ValueError for no names or a
    folder without text.
    """
    if isinstance(sources, str | Path):
        raise TypeError(f"sources is {sources!r}, expected a list of names: [{str(sources)!r}]")
    found = [file for source in sources for file in _files(source)]
    if not found:
        raise ValueError("no text was named; expected files, folders, patterns, or - for stdin")
    first: dict[Path | str, Path | str] = {}
    for file in found:  # which may be spelled in several ways
        first.setdefault(file if file == STDIN else Path(file).resolve(), file)
    return list(first.values())


def total_bytes(files: Iterable[Path | str]) -> int | None:
    """Bytes of all files together; None with standard input among them."""
    files = list(files)
    return None if STDIN in files else sum(file.stat().st_size for file in files)


def text_pieces(files: Iterable[Path | str], size: int, every: int) -> Iterator[Piece]:
    """All pieces of at most `size` characters; of each `every` the second is held out, at first.

    Errors: ValueError, naming the file, for one that is not UTF-8 text or may not be read.
    """

    def is_held_out(number: int) -> bool:
        return number % every == 1 and number // every < MOST_HELD_OUT

    number = 0
    for file in files:
        first = True
        for text, last in _cut(file, size):
            held_out = is_held_out(number)
            opens = first or held_out or is_held_out(number - 1)
            closes = last or held_out or is_held_out(number + 1)
            yield Piece(number, text, opens, closes, held_out)
            first, number = False, number + 1


def _files(source: str | Path) -> list[Path | str]:
    if source == STDIN:
        return [STDIN]
    path = check.path("source", source).expanduser()
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _may_be_text(path, file)]
        if not files:
            raise ValueError(f"{path} holds no text file, expected at least one in UTF-8: add one.")
        return files
    if path.is_file():
        return [path]
    matches = [Path(name) for name in sorted(glob(str(path), recursive=True))]
    files = [match for match in matches if match.is_file()]
    if not files:
        what = "file that matches" if has_magic(str(path)) else "file or folder"
        raise FileNotFoundError(f"There is no {what} {path}: give the path of a text.")
    return files


def is_hidden(file: Path, folder: Path) -> bool:
    """Whether the file, or a folder between `folder` and it, has a name that begins with a dot."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _may_be_text(folder: Path, file: Path) -> bool:
    """No picture, nothing empty, nothing hidden: what `_cut` will not stumble over at once."""
    if is_hidden(file, folder) or not file.is_file():
        return False
    with _named_errors(file), open(file, "rb") as handle:
        head = handle.read(HEAD)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a letter that is only cut off
            return False
    return bool(head) and b"\0" not in head


def _cut(file: Path | str, size: int) -> Iterator[tuple[str, bool]]:
    """The file's text in pieces, and whether it is the last one. An empty file has none."""
    rest = ""
    with _named_errors(file), _opened(file) as handle:
        while block := handle.read(size):
            if "\0" in block:
                raise ValueError(
                    f"{_name(file)} holds zero bytes, so it is binary or UTF-16, expected text: "
                    f"save it as UTF-8."
                )
            rest += block
            while len(rest) > size:
                border = _border(rest, size)
                yield rest[:border], False
                rest = rest[border:]
    if rest:
        yield rest, True


def _border(text: str, size: int) -> int:
    """Where the text is cut: in the second half of its first `size` characters."""
    for mark in BORDERS:
        found = [match.start() for match in mark.finditer(text, size // 2, size)]
        if found:
            return found[-1]
    return size


def _opened(file: Path | str) -> io.TextIOWrapper:
    """With line ends made plain, and without the mark that Windows puts before UTF-8."""
    if file == STDIN:
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline=None)
    return open(file, encoding="utf-8-sig", newline=None)


@contextmanager
def _named_errors(file: Path | str) -> Iterator[None]:
    """The system's errors in a sentence that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{_name(file)} is not UTF-8 text (0x{error.object[error.start]:02x} stands where no "
            f"letter begins): save it as UTF-8."
        ) from error
    except OSError as error:
        raise ValueError(f"{_name(file)} may not be read ({error.strerror}).") from error


def _name(file: Path | str) -> str:
    return "standard input" if file == STDIN else str(file)
