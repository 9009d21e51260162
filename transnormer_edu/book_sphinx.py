"""What Sphinx has to be told to make the book: equations as pictures, docstrings as they stand."""

import re
import zlib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from transnormer_edu import equations
from transnormer_edu.equations import equation, equation_or_source

LAID_OUT = re.compile(r"^\s|\S {2,}\S", re.MULTILINE)  # indented, or columns


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("drawn", (_inline, None), (_on_its_own_line, None))
    app.connect("autodoc-process-docstring", _keep_layout)
    app.connect("autodoc-process-signature", _short_signature)
    app.connect("html-page-context", _level_of_captions, priority=900)  # after the theme's own
    own = b"".join(Path(module).read_bytes() for module in (__file__, equations.__file__))
    return {"env_version": zlib.crc32(own), "parallel_read_safe": True}  # changed: all is read anew


def _inline(page, node: nodes.math) -> None:
    _draw(page, node, display=False)


def _on_its_own_line(page, node: nodes.math_block) -> None:
    _draw(page, node, display=True)


def _draw(page, node: nodes.Node, display: bool) -> None:
    latex = node.astext()
    try:
        drawn = equation(latex, display)
    except ValueError as error:
        logging.getLogger(__name__).warning(str(error), location=node)
        drawn = equation_or_source(latex, display)
    page.body.append(drawn)
    raise nodes.SkipNode


def _keep_layout(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are written for people: prose is prose, what is laid out in columns stays so."""
    lines[:] = as_rest("\n".join(lines)).splitlines()


def as_rest(docstring: str) -> str:
    """Plain text as reStructuredText: paragraphs, and literal blocks where layout carries sense."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip("\n"))
    return "\n\n".join(map(_paragraph, paragraphs)) + "\n"


def _paragraph(text: str) -> str:
    if LAID_OUT.search(text):
        return ".. code-block:: text\n\n" + "\n".join(f"    {line}" for line in text.splitlines())
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(
        f"`{piece}`" if piece.startswith("`") else re.sub(r"([\\*_|`])", r"\\\1", piece)
        for piece in pieces
    )


def _short_signature(app, what, name, obj, options, signature, returns):
    """`Float[Tensor, "b n"]` as it is written, without the modules that the words come from."""
    if signature is None:
        return None
    return tuple(_short(text) if text else text for text in (signature, returns))


def _short(text: str) -> str:
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text)
    return re.sub(r"<class '([^']+)'>", r"\1", text)


def _level_of_captions(app, name, template, context: dict, tree) -> None:
    """Sphinx calls the captions of the navigation headings, and does not say of which level."""
    navigation = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = navigation.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )
