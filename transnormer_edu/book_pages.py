"""A notebook as a page of the book: figures with captions, moving pictures, links that lead on.

MyST-NB renders the notebook; what it cannot know is done here before, in the notebook itself.
"""

import base64
import html
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_output

from transnormer_edu.book_moving import PICTURES, moving_picture

WIDGET = "application/vnd.jupyter.widget-view+json"
Write = Callable[[Path, bytes], None]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")


def for_the_book(notebook: NotebookNode, place: Path, root: Path, write: Write) -> None:
    """Change the notebook that stands at `place`, relative to the project, for the book.

    Pictures and linked files are handed to `write(place in the book's source, bytes)`.
    """
    notebook.metadata.pop("widgets", None)
    figures = _Figures(place, write)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_links(cell.source, place, root, write)
        elif cell.cell_type == "code":
            cell.outputs = [_output(output, figures) for output in _captioned(cell.outputs)]
            for data in (output.get("data", {}) for output in cell.outputs):
                if "text/markdown" in data:
                    data["text/markdown"] = with_links(data["text/markdown"], place, root, write)


def _captioned(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Without the line under a figure that `show` writes: it becomes the figure's caption."""
    kept, figure = [], False
    for output in outputs:
        data = output.get("data", {})
        if not (figure and data.get("text/markdown", "").startswith("*Figure.*")):
            kept.append(output)
        figure = "image/png" in data
    return kept


def _output(output: NotebookNode, figures: "_Figures") -> NotebookNode:
    data = output.get("data", {})
    if "image/png" in data:
        alt = output.metadata.get("image/png", {}).get("alt", "")
        return _page_html(figures.figure(data["image/png"], alt))
    if WIDGET in data:
        return _page_html(figures.moving(data.get("text/plain", "")))
    return output


def _page_html(text: str) -> NotebookNode:
    return new_output("display_data", data={"text/html": text})


class _Figures:
    """Writes a notebook's pictures, numbered, and gives the HTML that shows them."""

    def __init__(self, place: Path, write: Write):
        self.name, self.number, self.write = place.stem, 0, write
        self.top = Path(os.path.relpath(".", place.parent)).as_posix()  # the way to the website

    def figure(self, png: str, alt: str) -> str:
        picture = base64.b64decode(png)
        width, height = struct.unpack(">II", picture[16:24])
        self.number += 1
        file = f"figures/{self.name}-{self.number}.png"
        self.write(Path("_extra", file), picture)
        words = html.escape(alt)
        return (
            f'<figure><img src="{self.top}/{file}" alt="{words}" width="{width}" '
            f'height="{height}" loading="lazy"><figcaption>{words}</figcaption></figure>'
        )

    def moving(self, words: str) -> str:
        """The picture that moves without a kernel, or the words for what stands there with one."""
        picture = PICTURES.get(self.name)
        if picture and words.startswith(picture.stands):
            return moving_picture(picture.name, self.top)
        return f'<p class="away">{html.escape(words)}</p>'


def with_links(text: str, place: Path, root: Path, write: Write) -> str:
    """Markdown that stands at `place` in the project, its links as the book needs them.

    A page of docs/ stands in the book's first folder, everything else where it stands in the
    project. A module's link leads to its page; what is no page is copied, to be downloaded.
    """
    here = place.relative_to("docs") if place.parts[0] == "docs" else place

    def lead(link: re.Match) -> str:
        path = Path(os.path.normpath(place.parent / link[1]))
        if not (root / path).exists():
            return link[1]  # of a page that is only in the book
        return Path(os.path.relpath(_in_the_book(path, root, write), here.parent)).as_posix()

    return LINK.sub(lead, text)


def _in_the_book(path: Path, root: Path, write: Write) -> Path:
    if path.parts[0] == "docs":
        return path.relative_to("docs")
    if path.suffix == ".ipynb" and "solutions" not in path.parts:
        return path
    if path.suffix == ".py" and _is_module(path):
        inside = (path.parent if path.stem == "__init__" else path.with_suffix("")).parts
        return Path("api", ".".join(inside[1:] if inside[0] == "kernels" else inside) + ".md")
    if (root / path).is_file():
        copy = Path("files", f"{path}.txt" if path.suffix == ".md" else path)  # no page of the book
        for folder in (Path(), Path("_extra")):  # for Sphinx to find, and for slides to link to
            write(folder / copy, (root / path).read_bytes())
        return copy
    return path


def _is_module(path: Path) -> bool:
    return path.parts[0] == "transnormer_edu" or path.parts[:2] == (
        "kernels",
        "transnormer_kernels",
    )
