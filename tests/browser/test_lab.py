"""JupyterLab as `make lab` opens it: the first lesson, its slider, its way on and its way back."""

from tests.browser.conftest import run_lesson, wait_for_kernel

COUNTS = """() => window.jupyterapp.shell.currentWidget.model.sharedModel.cells
  .map(cell => cell.execution_count).filter(Boolean)"""


def test_the_first_lesson_from_its_beginning_to_the_next(lab, lab_page):
    page = lab_page
    page.goto(lab.first_address())
    wait_for_kernel(page, "00_start_here")
    assert not run_lesson(page)

    box = page.locator(".jp-Notebook .widget-vbox:has(img.widget-image)")
    handle, picture = box.locator(".noUi-handle"), box.locator("img")
    before, said = picture.get_attribute("src"), box.inner_text()
    handle.press("ArrowRight")
    page.wait_for_function("([p, src]) => p.src !== src", arg=[picture.element_handle(), before])
    assert box.inner_text() != said

    # back to the start, as the lesson's end says
    page.locator(".lm-MenuBar-itemLabel", has_text="Kernel").click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog button.jp-mod-warn").click()
    page.wait_for_function(f"Math.max(...({COUNTS})()) < 5")  # it counts from 1 again
    wait_for_all(page)
    counts = page.evaluate(COUNTS)
    assert counts == list(range(1, len(counts) + 1))

    page.locator(".jp-RenderedMarkdown a", has_text="attention.py").last.click()
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget?.context?.path === 'transnormer_edu/attention.py'"
    )
    page.get_by_role("tab", name="00_start_here").click()
    page.locator(".jp-RenderedMarkdown a", has_text="01 Softmax attention").last.click()
    wait_for_kernel(page, "01_softmax_attention")


def wait_for_all(page):
    """Until the last cell has run."""
    page.wait_for_function(
        """() => window.jupyterapp.shell.currentWidget.model.sharedModel.cells
          .filter(cell => cell.cell_type === "code").every(cell => cell.execution_count)"""
    )
