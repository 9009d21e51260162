"""Make the book, `make book`: lessons, exercises, guide, glossary and API as one website.

    python -m transnormer_edu.book

Sphinx does the work, set up by docs/conf.py. Here everything that it reads is brought together in
build/book/source: the pages of docs/, the notebooks (a lesson that `make course` has just run as it
ran, another one as it is stored), a page for each module, and the data of the moving pictures. The
website stands in build/book/html; it is read from the disk or any server, and fetches nothing.
"""

import argparse
import html
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from transnormer_edu.course import CannotRun, choose, need, project_root

EXTRA = Path("_extra")  # this folder of the source goes into the website as it is
PACKAGES = {"transnormer_edu": ".", "transnormer_kernels": "kernels"}  # name -> folder it lies in


def build_book(*, root: Path | None = None, stored: bool = False) -> int:
    """Write build/book/html/index.html; 0 when every page could be made without a warning.

    stored    the lessons as they lie in notebooks/, even where `make course` has run them
    """
    try:
        root = root or project_root()
        need("sphinx", "myst_nb", "furo", "py_mini_racer", extra="course,book")
    except CannotRun as reason:
        print(f"book: {reason}", file=sys.stderr)
        return 1
    from sphinx.cmd.build import build_main

    book = root / "build" / "book"
    source = Source(book / "source")
    gather(root, source, stored)
    if source.remove_others():  # Sphinx would leave their pages where they are
        shutil.rmtree(book / "html", ignore_errors=True)
    quiet = ("--quiet", "--fail-on-warning", "--keep-going")
    folders = ("-d", book / "read", "-c", root / "docs", book / "source", book / "html")
    failed = build_main([*quiet, *map(str, folders)])
    if not failed:
        print(f"Read the book:   {(book / 'html' / 'index.html').resolve().as_uri()}")
    return failed


class Source:
    """The folder that Sphinx reads; what did not change stays untouched and is read once."""

    def __init__(self, folder: Path):
        self.folder, self.written = folder, set()

    def write(self, place: Path | str, content: str | bytes) -> None:
        """A file at `place` in the folder."""
        path = self.folder / place
        self.written.add(path)
        content = content if isinstance(content, bytes) else content.encode()
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def remove_others(self) -> bool:
        """What was not written this time is of an earlier one; True where there was some."""
        old = {path for path in self.folder.rglob("*") if path.is_file()} - self.written
        for path in old:
            path.unlink()
        return bool(old)


def gather(root: Path, source: Source, stored: bool = False) -> None:
    """Bring together what Sphinx reads; see `build_book`."""
    from transnormer_edu.book_moving import data_files
    from transnormer_edu.equations import STYLE

    _gather_pages(root, source)
    lessons = choose(root / "notebooks", None)
    for path in (*lessons, *sorted((root / "notebooks" / "exercises").glob("*.ipynb"))):
        _gather_notebook(path, root, source, stored)
    source.write(EXTRA / "equations.css", STYLE)
    for pattern in ("moving/*", "slides/slides.*"):
        for path in sorted((root / "docs").glob(pattern)):
            source.write(EXTRA / path.relative_to(root / "docs"), path.read_bytes())
    for name, script in data_files({path.stem for path in lessons}).items():
        source.write(EXTRA / "moving" / name, script)
    modules = dict(_modules(root))
    for name, path in modules.items():
        source.write(f"api/{name}.md", module_page(name, path.stem == "__init__"))
    source.write("api/index.md", api_index(modules))


def _gather_pages(root: Path, source: Source) -> None:
    """The pages of docs/; one that the contents in index.md do not name is added to them."""
    from transnormer_edu.book_pages import with_links

    pages = {path: path.read_text("utf-8") for path in sorted((root / "docs").glob("*.md"))}
    for path, text in pages.items():
        if path.name == "index.md":
            others = [p.stem for p in pages if p != path and f"\n{p.stem}\n" not in text]
            text = text.replace("<!-- other pages -->", "\n".join(others))
            text = text.replace("<!-- lessons -->", _table(root / "notebooks"))
            text = text.replace("<!-- memory -->", _picture(root, "memory.svg", source))
        source.write(path.name, with_links(text, path.relative_to(root), root, source.write))


def _picture(root: Path, name: str, source: Source) -> str:
    """One of the README's pictures as HTML."""
    from transnormer_edu.front_page import FOLDER, pictures

    source.write(EXTRA / "pictures" / name, (root / FOLDER / name).read_bytes())
    words = html.escape(pictures()[name][1])
    image = f'<img src="pictures/{name}" alt="{words}" width="750" height="350">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def _gather_notebook(path: Path, root: Path, source: Source, stored: bool) -> None:
    from nbformat import read, writes

    from transnormer_edu.book_pages import for_the_book
    from transnormer_edu.slides import deck

    notebook = read(path, as_version=4)
    executed = root / "build" / "lessons" / path.name
    if not stored and path.parent.name == "notebooks" and executed.exists():
        ran = read(executed, as_version=4)
        if [cell.source for cell in ran.cells] == [cell.source for cell in notebook.cells]:
            notebook = ran  # of the same text
    place = path.relative_to(root)
    for_the_book(notebook, place, root, source.write)
    source.write(place, writes(notebook) + "\n")
    if path.parent.name == "notebooks":
        template = (root / "docs" / "slides" / "deck.html").read_text(encoding="utf-8")
        source.write(EXTRA / "slides" / f"{path.stem}.html", deck(notebook, path.stem, template))


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every public module of the packages."""
    for package, folder in PACKAGES.items():
        for path in sorted((root / folder / package).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            if not parts[-1].startswith("_") or parts[-1] == "__init__":
                yield ".".join(part for part in parts if part != "__init__"), path


def module_page(name: str, package: bool) -> str:
    """A page that shows a module's docstrings, and from there its source.

    What a package hands on from its modules is shown with these alone.
    """
    members = "" if package else "   :members:\n"
    return f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n{members}```\n"


def api_index(modules: dict[str, Path]) -> str:
    """All modules, each with the first sentence of its docstring."""
    lines = ["# Modules", "", "Every public function, with a link to its source.", ""]
    for name, path in modules.items():
        first = re.search(r'^"""(.+?)(?:"""|\n\n|$(?!\n\S))', path.read_text("utf-8"), re.S)
        said = " ".join(first[1].split()).replace("*", r"\*").replace("<", r"\<") if first else ""
        lines.append(f"- [`{name}`]({name}.md): {said}")
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", ":glob:", "", "*", "```", ""])


def _table(notebooks: Path) -> str:
    """The lessons with their questions, minutes and slides, as a table for a page of docs/."""
    from transnormer_edu.front_page import stops

    lines = ["| lesson | question | to read | to show |", "|---|---|--:|---|"]
    lines += [
        f"| [{stop.name}](../notebooks/{stop.path.name}) | {stop.question} | {stop.minutes} "
        f'| <a href="slides/{stop.path.stem}.html">slides</a> |'
        for stop in stops(notebooks)
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m transnormer_edu.book", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--stored", action="store_true", help="the outputs in notebooks/, not those of make course"
    )
    return build_book(stored=parser.parse_args(arguments).stored)


if __name__ == "__main__":
    sys.exit(main())
