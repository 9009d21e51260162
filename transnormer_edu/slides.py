"""A lesson as slides for a projector: one deck for each, made of the same cells as its page.

A slide holds a text and the cells that follow it. How much fits is seen by docs/slides/slides.js,
in the window where it is shown: it moves the rest to another slide. Code that only imports or only
draws a figure is left out.
"""

import ast
import html
import re
from string import Template

from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.filters.markdown_mistune import MarkdownWithMath
from nbformat import NotebookNode

from transnormer_edu.notebook_pages import EquationRenderer, title

DRAWS = re.compile(r"\A(?:[^\n]*\n){0,3}(?:show|slider|Explorer|Markdown)\([^\n]*\Z")


def deck(notebook: NotebookNode, name: str, template: str) -> str:
    """The page of a deck. `notebook` is one that `book_pages.for_the_book` has seen to."""
    slides, section = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^## +(.+)$", cell.source, re.MULTILINE)
            section = heading[1] if heading else section
            if cell.source.startswith("<details>") and slides:
                slides[-1][1].append(_text(cell.source))  # the answer stands with its question
            else:
                slides.append((section, [_text(cell.source)]))
        elif cell.source.strip() and not _only_imports(cell.source):
            slides[-1][1].extend(_code(cell))
    named = html.escape(title(notebook))
    whole = "\n".join(_slide(named, section, blocks) for section, blocks in slides)
    return Template(template).substitute(title=named, name=name, slides=whole)


def _slide(lesson: str, section: str, blocks: list[str]) -> str:
    content = "\n".join(blocks)
    header = f"<span>{lesson}</span><span>{html.escape(section)}</span>"
    return (
        f'<section class="slide"><header>{header}</header>'
        f'<div class="content">{content}</div></section>'
    )


def _text(source: str) -> str:
    renderer = EquationRenderer(escape=False, exclude_anchor_links=True)
    renderer.move = _from_the_deck
    return MarkdownWithMath(renderer=renderer).render(source)


def _from_the_deck(link: str) -> str:
    """A link as it stands in a notebook of the book, as it must stand in a deck."""
    if re.match(r"[a-z]+:|#|/", link):
        return link
    page = re.sub(r"\.(ipynb|md)(?=#|$)", ".html", link)
    return f"../notebooks/{page}" if not page.startswith("../") else page


def _code(cell: NotebookNode) -> list[str]:
    blocks = [] if DRAWS.search(cell.source) else [f'<div class="input">{_html(cell.source)}</div>']
    for output in cell.outputs:
        data = output.get("data", {})
        if "text/html" in data:
            blocks.append(data["text/html"].replace(' loading="lazy"', ""))
        elif "text/markdown" in data:
            blocks.append(f'<div class="output">{_text(data["text/markdown"])}</div>')
        else:
            error = "\n".join(output.get("traceback", []))
            text = output.get("text") or data.get("text/plain") or error
            blocks.append(f'<pre class="output">{html.escape(text)}</pre>')
    return blocks


def _html(source: str) -> str:
    return Highlight2HTML(pygments_lexer="ipython3")(source)


def _only_imports(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a line for IPython
        return False
    return all(isinstance(line, ast.Import | ast.ImportFrom) for line in body)
