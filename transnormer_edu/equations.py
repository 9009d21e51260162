"""Equations as pictures, drawn by MathJax while a page is made: no script is needed to read it.

    latex  ->  <span class="equation"><svg> what is seen </svg><math> what is heard </math></span>

MathJax comes out of a Python package and runs in V8 inside this process; nothing is fetched. The
drawing takes the colour of the text around it; the MathML beside it is for screen readers and for
those who copy. A page needs `STYLE` once.
"""

import atexit
import html
import re
from functools import cache
from importlib.metadata import files

from py_mini_racer import JSEvalException, MiniRacer

PACKAGE = "sphinx-mathjax-offline"  # MathJax 3.2 as a wheel
PARTS = (
    "startup.js", "core.js", "adaptors/liteDOM.js", "input/tex-full.js", "output/svg.js",
    "output/svg/fonts/tex.js",
)  # fmt: skip
UNUSED = re.compile(r' (?:data-[a-z-]+|id|xmlns(?::xlink)?)="[^"]*"|(?<=>)\s+(?=<)')
BEFORE = """
var window = globalThis, self = globalThis, console = { log() {}, warn() {}, error() {} };
var MathJax = { loader: { load: [] }, startup: { typeset: false, ready() {} } };
"""
AFTER = """
const { adaptors, core, handlers, input, mathjax, output } = MathJax._;
const page = adaptors.liteAdaptor.liteAdaptor(), hear = new core.MmlTree.SerializedMmlVisitor
  .SerializedMmlVisitor();
handlers.html_ts.RegisterHTMLHandler(page);
const TeX = new input.tex_ts.TeX({
  packages: ["base", "ams"], tags: "ams", formatError(_, error) { throw Error(error.message); },
});
const font = new output.svg.fonts.tex_ts.TeXFont();
const SVG = new output.svg_ts.SVG({ fontCache: "none", font });
const pages = mathjax.mathjax.document("", { InputJax: TeX, OutputJax: SVG });
function draw(latex, display) {
  TeX.reset();
  const tree = pages.convert(latex, { display, end: core.MathItem.STATE.CONVERT });
  TeX.reset();
  return page.outerHTML(pages.convert(latex, { display, em: 16, ex: 8 })) + hear.visitTree(tree);
}
"""
STYLE = """
.equation { position: relative; }
.equation mjx-container { line-height: 0; }
.equation svg { overflow: visible; }
.equation svg a { fill: currentColor; }
.equation.display { display: block; text-align: center; margin: .4em 0; overflow: auto hidden;
  padding: 2px 0; }
.equation.display mjx-container { display: block; }
.equation math { position: absolute; left: 0; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
"""


def equation(latex: str, display: bool) -> str:
    r"""HTML of one equation; `display`: on a line of its own, where \tag numbers it.

    Errors: ValueError, with MathJax's words, for what is no LaTeX that it knows.
    """
    try:
        both = _engine().call("draw", latex.strip(), display)
    except JSEvalException as error:
        reason = str(error).splitlines()[0].split("Error: ")[-1]
        raise ValueError(f"the equation {latex.strip()!r}: {reason}") from None
    kind, element = (" display", "div") if display else ("", "span")
    both = both.replace('role="img"', 'aria-hidden="true"')
    return f'<{element} class="equation{kind}">{UNUSED.sub("", both)}</{element}>'


def equation_or_source(latex: str, display: bool) -> str:
    """As `equation`; for what is no LaTeX, its source."""
    try:
        return equation(latex, display)
    except ValueError:
        return f"<code>{html.escape(latex)}</code>"


@cache
def _engine() -> MiniRacer:
    engine = MiniRacer()
    atexit.register(engine.close)  # else its thread keeps Python from ending
    engine.eval(BEFORE)
    folder = {str(path).split("/mathjax/")[-1]: path for path in files(PACKAGE) or ()}
    for part in PARTS:
        engine.eval(folder[part].locate().read_text(encoding="utf-8"))
    engine.eval(AFTER)
    return engine
