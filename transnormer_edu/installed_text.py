"""A larger corpus that needs no download: sources and docs of the packages installed here.

    installed_corpus(train_bytes=200_000_000, held_out_bytes=4_000_000)

A package is what pip calls a distribution; the standard library is one more. All of a package is on
one side, and the side depends on its name alone, as in data.py. Files come in an order drawn from
their names, so that the first million bytes are of as many packages as the last. A paragraph that
stood before, in whatever file, is left out: what is held out was never trained on.
"""

import hashlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from transnormer_edu import check
from transnormer_edu.data import Corpus, Document, is_held_out
from transnormer_edu.library_text import LEFT_OUT, standard_library_files

SUFFIXES = (".py", ".md", ".rst")
LARGEST_FILE = 300_000  # bytes; larger ones are tables that a program wrote
SHORTEST_COPY = 60  # letters; shorter paragraphs ("return self") are nobody's copy

NAME = "installed"
INSTALLED_IN = ("site-packages", "dist-packages")


def installed_corpus(train_bytes: int, held_out_bytes: int) -> Corpus:
    """Up to so many UTF-8 bytes of each side, copies removed.

    Errors: ValueError where the packages here hold less.
    """
    wanted = {"train": train_bytes, "held out": held_out_bytes}
    for side, size in wanted.items():
        check.whole(f"{side} bytes", size)
    sides = {side: [] for side in wanted}
    for file in sorted(_files(), key=lambda file: _digest(file[1])):
        sides["held out" if is_held_out(file[0]) else "train"].append(file)
    seen: set[bytes] = set()
    parts = [_take(sides[side], wanted[side], side, seen) for side in wanted]
    return Corpus(NAME, *parts, source=NAME)


def _files() -> Iterator[tuple[str, str, Path]]:
    """Package, name and path of every file that is read."""
    owners = importlib.metadata.packages_distributions()
    for root in sorted({Path(p) for p in sys.path if Path(p).name in INSTALLED_IN}):
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            if path.suffix in SUFFIXES and not (LEFT_OUT & set(parts) or ".dist-info" in parts[0]):
                top = parts[0].removesuffix(path.suffix)
                package = min(owners.get(top, [top])).lower()  # a folder may be several packages
                yield package, "/".join((package, *parts)), path
    for name, path in standard_library_files():
        yield "python", f"python/{name}", path


def _take(files, size: int, side: str, seen: set[bytes]) -> tuple[Document, ...]:
    documents, length = [], 0
    for _, name, path in files:
        text = "\n\n".join(_new_paragraphs(_read(path), seen))
        if text:
            documents.append(Document(name, text))
            length += len(text.encode())
        if length >= size:
            return tuple(documents)
    raise ValueError(
        f"the packages installed here hold {length:,} bytes of text on the side '{side}', expected "
        f"{size:,}: ask for less, or install more"
    )


def _read(path: Path) -> str:
    """The text of a file; nothing for one that is too large or no UTF-8."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return ""
        return path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return ""


def _new_paragraphs(text: str, seen: set[bytes]) -> Iterator[str]:
    """Paragraphs that did not stand before, whatever their white space; remembered in `seen`."""
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        digest = _digest(words)
        if words and (digest not in seen or len(words) < SHORTEST_COPY):
            seen.add(digest)
            yield paragraph.rstrip()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
