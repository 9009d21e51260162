"""The book: `make book` brings its pages together in build/book/source and calls Sphinx on them."""

from pathlib import Path

DOCS = Path(__file__).parent

project = "TransNormerLLM, lesson by lesson"
html_title = project
copyright = "the authors, Apache-2.0"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "transnormer_edu.book_sphinx",
]

# Lessons: they were executed before; their equations are drawn while the book is made.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
html_math_renderer = "drawn"
suppress_warnings = ["config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # what PyTorch says of a method stands in its own pages
toc_object_entries = False
add_module_names = False

html_theme = "furo"
html_favicon = str(DOCS / "_static" / "icon.svg")
html_static_path = [str(DOCS / "_static")]
html_css_files = ["../equations.css", "book.css"]
html_js_files = ["book.js"]
html_extra_path = [str(DOCS.parent / "build" / "book" / "source" / "_extra")]
exclude_patterns = ["_extra", "files"]
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # for it, a search loads every page that it finds
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00517f", "color-brand-content": "#00517f"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"},
}
copybutton_selector = "div.cell_input pre, div.highlight-sh pre"
