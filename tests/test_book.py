"""What the book is made of: pages as Sphinx reads them, without building it."""

import base64
import json
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from transnormer_edu import book, book_moving
from transnormer_edu.attention import linear_attention
from transnormer_edu.book_pages import WIDGET, for_the_book, with_links
from transnormer_edu.book_sphinx import as_rest
from transnormer_edu.dilution import attention_mass
from transnormer_edu.plots.moving import AWAY
from transnormer_edu.slides import deck

ROOT = Path(__file__).parents[1]
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAYAAAC56t6BAAAADklEQVQI12NgYGD4D8cAFv0D/RBh0B4AAAAASUVORK5C"
    "YII="
)


@pytest.fixture
def source(tmp_path):
    return book.Source(tmp_path / "source")


def figure(alt):
    return new_output("display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": alt}})


def below(text):
    return new_output("display_data", data={"text/markdown": text, "text/plain": text})


def in_the_book(source, *cells, place="notebooks/01_softmax_attention.ipynb"):
    notebook = new_notebook(cells=list(cells))
    for_the_book(notebook, Path(place), ROOT, source.write)
    return notebook


def test_a_figure_has_its_words_below_and_as_alternative(source):
    outputs = [figure('a "b" < c'), below('*Figure.* a "b" < c'), below("*Figure.* another")]
    (cell,) = in_the_book(source, new_code_cell("show()", outputs=outputs)).cells
    shown, other = cell.outputs
    page = shown.data["text/html"]
    assert 'alt="a &quot;b&quot; &lt; c" width="2" height="3"' in page
    assert "<figcaption>a &quot;b&quot; &lt; c</figcaption>" in page
    assert 'src="../figures/01_softmax_attention-1.png"' in page
    assert (source.folder / "_extra/figures/01_softmax_attention-1.png").stat().st_size > 60
    assert other.data["text/markdown"] == "*Figure.* another", "a line of its own"


def test_a_slider_becomes_a_moving_picture_or_its_words(source):
    data = {WIDGET: {"model_id": "x"}, "text/plain": AWAY}
    cell = new_code_cell("slider()", outputs=[new_output("display_data", data=data)])
    seen_in = {
        "04_decay": 'data-picture="decay"',
        "05_lrpe": AWAY,  # no picture is made for it
        "03_attention_dilution": AWAY,  # the picture there is of its explorer
    }
    for place, seen in seen_in.items():
        notebook = in_the_book(source, cell.copy(), place=f"notebooks/{place}.ipynb")
        assert seen in notebook.cells[0].outputs[0].data["text/html"]


@pytest.mark.parametrize(
    "link, place, wanted",
    [
        (
            "../transnormer_edu/decay.py",
            "notebooks/04_decay.ipynb",
            "../api/transnormer_edu.decay.md",
        ),
        ("05_lrpe.ipynb#here", "notebooks/04_decay.ipynb", "05_lrpe.ipynb#here"),
        ("../notebooks/05_lrpe.ipynb", "docs/index.md", "notebooks/05_lrpe.ipynb"),
        (
            "../kernels/transnormer_kernels/scan.py",
            "docs/index.md",
            "api/transnormer_kernels.scan.md",
        ),
        (
            "../transnormer_edu/parallel/__init__.py",
            "notebooks/13_scaling_out.ipynb",
            "../api/transnormer_edu.parallel.md",
        ),
        ("../README.md", "notebooks/04_decay.ipynb", "../files/README.md.txt"),
        ("api/index.md", "docs/index.md", "api/index.md"),
        ("https://a.org/b.py", "docs/index.md", "https://a.org/b.py"),
    ],
)
def test_links_lead_to_where_things_are_in_the_book(source, link, place, wanted):
    assert with_links(f"[x]({link})", Path(place), ROOT, source.write) == f"[x]({wanted})"


def test_what_is_no_page_is_copied(source):
    with_links("[x](../README.md)", Path("docs/index.md"), ROOT, source.write)
    for folder in ("files", "_extra/files"):
        copy = source.folder / folder / "README.md.txt"
        assert copy.read_bytes() == (ROOT / "README.md").read_bytes()


def test_only_what_changed_is_written_and_what_is_gone_is_removed(source):
    source.write("old.md", "x")
    source.write("same.md", "x")
    before = (source.folder / "same.md").stat().st_mtime_ns
    again = book.Source(source.folder)
    again.write("same.md", "x")
    assert again.remove_others()
    assert not again.remove_others()
    assert (source.folder / "same.md").stat().st_mtime_ns == before
    assert not (source.folder / "old.md").exists()


def test_an_executed_lesson_counts_only_while_its_text_is_the_same(source, tmp_path):
    def lesson(folder, text, output):
        cell = new_code_cell(
            text, outputs=[new_output("stream", name="stdout", text=output)], id="c"
        )
        path = tmp_path / folder / "00_start_here.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        title = new_markdown_cell("# First", id="t")
        nbformat.write(new_notebook(cells=[title, cell]), path)
        return path

    def shown(stored=False):
        book._gather_notebook(path, tmp_path, source, stored)
        return (source.folder / "notebooks/00_start_here.ipynb").read_text()

    (tmp_path / "docs" / "slides").mkdir(parents=True)
    (tmp_path / "docs" / "slides" / "deck.html").write_text("$title $name $slides")
    path = lesson("notebooks", "print(1)", "as stored")
    lesson("build/lessons", "print(1)", "as it ran")
    assert "as it ran" in shown()
    assert "as stored" in shown(stored=True)
    lesson("build/lessons", "print(2)", "of another text")
    assert "as stored" in shown()


def test_a_docstring_keeps_its_layout_and_its_signs():
    text = "Sum of x*y and z_.\nSee `mask`.\n\n    o = q S     (b, n)\n\nErrors: none."
    rest = as_rest(text)
    assert rest.startswith(r"Sum of x\*y and z\_." + "\nSee ``mask``.\n\n.. code-block:: text\n\n")
    assert "        o = q S     (b, n)\n" in rest


def test_a_page_for_every_module():
    modules = dict(book._modules(ROOT))
    assert {"transnormer_edu.decay", "transnormer_edu", "transnormer_kernels.scan"} <= set(modules)
    index = book.api_index(modules)
    assert "- [`transnormer_edu.norm`](transnormer_edu.norm.md): " in index
    assert ":members:" in book.module_page("transnormer_edu.decay", package=False)


def test_the_explorer_shows_shares_of_the_trained_models():
    data = book_moving.explorer_data()
    (maps,) = {tuple(text["maps"]) for text in data["texts"]}
    assert maps == tuple(book_moving.MODELS)
    text = data["texts"][0]
    n = len(text["tokens"])
    one = torch.rand(n, n, dtype=torch.float64).tril()
    packed = book_moving._map(one)["map"]
    past = torch.ones(n, n).tril().bool()
    shades = torch.frombuffer(bytearray(base64.b64decode(packed)), dtype=torch.uint8)
    torch.testing.assert_close(
        (shades.double() / 255) ** 2, attention_mass(one)[past], rtol=0, atol=0.004
    )
    size = len(json.dumps(data))
    assert size < 400_000, size


def test_the_stepper_holds_the_state_of_the_package():
    data, letters = book_moving.tiles_data(), sorted("abrcd")
    assert data["names"] == letters
    v = torch.eye(5)[[letters.index(c) for c in data["text"]]]
    k = torch.cat([torch.zeros(1, 5), v[:-1]])
    rate = -torch.tensor([0.9]).log()
    _, state = linear_attention(*(x[None, None] for x in (k, k, v)), rate, return_state=True)
    torch.testing.assert_close(torch.tensor(data["states"][-1]), state[0, 0], atol=1e-3, rtol=0)
    assert len(data["moments"]) == 12
    assert data["moments"][-1]["chunk"] == 3


def test_slides_leave_out_imports_and_keep_an_answer_with_its_question(source):
    notebook = in_the_book(
        source,
        new_markdown_cell("# A lesson\n\n> **Question** Why?"),
        new_code_cell("import torch\nfrom math import pi"),
        new_markdown_cell("## 1 First\n\nPredict $x$. See [two](02_linear_attention.ipynb)."),
        new_code_cell("print(1 < 2)", outputs=[new_output("stream", name="stdout", text="1<2\n")]),
        new_code_cell("show(*plot())", outputs=[figure("a curve")]),
        new_markdown_cell("<details><summary>Check</summary>\n\nYes.\n\n</details>"),
    )
    page = deck(notebook, "01_softmax_attention", "$title|$name|$slides")
    assert page.startswith("A lesson|01_softmax_attention|")
    assert page.count('<section class="slide">') == 2
    assert "import" not in page
    assert "show" not in page
    assert "1&lt;2" in page
    assert '<img src="../figures/' in page
    assert 'href="../notebooks/02_linear_attention.html"' in page
    assert page.index("1&lt;2") < page.index("<details>")
    assert "<svg" in page
