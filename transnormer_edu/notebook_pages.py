"""Executed notebooks as HTML pages that need no network: equations are drawn, links stay local.

nbconvert does the work. Three things are ours: equations are drawn while the page is made
(nbconvert would fetch MathJax when it is read), links from lesson to lesson lead from page to
page, and a figure keeps the sentence that describes it as its alternative text.
"""

import html
import os
import re
from pathlib import Path

import nbformat
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from transnormer_edu.equations import STYLE, equation_or_source

# Of nbconvert's page: no scripts from elsewhere, a way back to the index, alternative texts, and
# in place of a widget, which needs a kernel, the words that come with it.
PAGE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
  main { max-width: 60rem; margin: auto; padding: 1rem; }
  nav { margin: 1rem 0; }
  h1 { line-height: 1.2 !important; }
  details { margin-bottom: 1em !important; }  /* what comes after a fold is not part of it */
  .jp-InputArea-editor { overflow-x: auto !important; }  /* long lines are scrolled, not cut off */
  .jp-MarkdownOutput pre { margin-bottom: 1em !important; }
  .jp-RenderedText pre { word-break: normal !important; }
  td code, th code { white-space: pre !important; }  /* a token is not cut at its space */
  @media (max-width: 40rem) {
    body, main, .jp-Cell { padding: 0 !important; margin: 0 !important; }
    main { padding: 0 .6rem !important; }
    .jp-Cell { padding: .4rem 0 !important; }
    .jp-MarkdownOutput { padding: 0 !important; }
    .jp-RenderedImage, .jp-RenderedText, .jp-InputArea-editor { margin-left: 0 !important; }
  }
  {{ resources.equations }}
</style>
{%- endblock -%}
{%- block body_header -%}
{{ super() }}<nav><a href="index.html">All lessons</a></nav>
{%- endblock -%}
{%- block data_png -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
     alt="{{ (output | get_metadata('alt', 'image/png') or '') | e }}">
</div>
{%- endblock -%}
{%- block data_widget_view -%}
<p class="jp-OutputArea-output"><em>{{ output.data.get('text/plain', '') | e }}</em></p>
{%- endblock -%}
"""

INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>TransNormerLLM, lesson by lesson</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
  body {{ font: 1.05rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; }}
  td, th {{ padding: .3rem .8rem; text-align: left; }}
  td.number {{ text-align: right; }}
</style></head><body>
<h1>TransNormerLLM, lesson by lesson</h1>
<p>These pages are the lessons as they ran on this machine. To change and run them yourself:
<code>make lab</code> or <code>python3 start.py lab</code>.</p>
<table><thead><tr><th>Lesson</th><th>To read</th><th>Ran in</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


class LessonPage(HTMLExporter):
    """nbconvert's exporter, with equations and links rendered by `EquationRenderer`."""

    def __init__(self, notebooks: Path, pages: Path, **kwargs):
        super().__init__(raw_template=PAGE, **kwargs)
        self.notebooks, self.pages = notebooks, pages

    @pass_context  # Jinja then hands over the cell
    def markdown2html(self, context, source):
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = EquationRenderer(escape=False, attachments=attachments, anchor_link_text=" ")
        renderer.move = self.move
        return MarkdownWithMath(renderer=renderer).render(source)

    def move(self, url: str) -> str:
        """A link as it stands in a notebook, as it must stand in the page made of it."""
        if re.match(r"[a-z]+:|#|/", url, re.IGNORECASE):
            return url
        path, _, place = url.partition("#")
        target = self.notebooks / path
        if target.suffix == ".ipynb" and target.parent == self.notebooks:
            moved = target.with_suffix(".html").name
        else:
            moved = Path(os.path.relpath(target, self.pages)).as_posix()
        return f"{moved}#{place}" if place else moved


class EquationRenderer(IPythonRenderer):
    """Draws equations; `move(link)` says where a link leads from this page."""

    def inline_math(self, body):
        return equation_or_source(body, display=False)

    def block_math(self, body):
        return equation_or_source(body, display=True)

    def latex_environment(self, name, body):
        whole = f"\\begin{{{name}}}{body}\\end{{{name}}}"
        return equation_or_source(whole, display=True)

    def link(self, text, url, title=None):
        return super().link(text, self.move(url), title)

    def image(self, text, url, title=None):
        return super().image(text, self.move(url), title)


def write_page(notebook, name: str, notebooks: Path, pages: Path) -> Path:
    """Write build/pages/NAME.html."""
    body, _ = LessonPage(notebooks, pages).from_notebook_node(
        notebook,
        resources={"metadata": {"name": title(notebook) or name}, "equations": STYLE},
    )
    page = pages / f"{name}.html"
    page.write_text(body, encoding="utf-8")
    return page


def write_index(lessons: dict[str, dict], pages: Path) -> Path:
    """`lessons`: name -> {"title", "minutes", "seconds", "ok"}, in order."""
    rows = []
    for name, lesson in lessons.items():
        failed = "" if lesson["ok"] else " (a cell failed)"
        minutes = f"{lesson['minutes']} min" if lesson["minutes"] else ""
        rows.append(
            f'<tr><td><a href="{name}.html">{html.escape(lesson["title"])}</a>{failed}</td>'
            f'<td class="number">{minutes}</td>'
            f'<td class="number">{lesson["seconds"]:.0f} s</td></tr>'
        )
    index = pages / "index.html"
    index.write_text(INDEX.format(rows="\n".join(rows)), encoding="utf-8")
    return index


def title(notebook: nbformat.NotebookNode) -> str:
    """The first heading, without its marks."""
    for cell in notebook.cells:
        found = re.search(r"^#+ +(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and found:
            return re.sub(r"[*_`]", "", found[1]).strip()
    return ""


def minutes_to_read(notebook: nbformat.NotebookNode) -> int | None:
    """From the lesson's contract: "**Time** 25 min reading"."""
    for cell in notebook.cells[:4]:
        found = re.search(r"\*\*Time\*\*\s*:?\s*(\d+)\s*min", cell.source)
        if found:
            return int(found[1])
    return None
