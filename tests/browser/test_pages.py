"""The pages of `make course`, on a phone and a desktop: nothing is cut off, pictures have words."""

import nbformat
import pytest

from tests.browser.conftest import DESKTOP, PHONE, ROOT
from transnormer_edu import notebook_pages

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))

# What is wider than its place, where neither it nor anything in it can be scrolled.
CUT_OFF = """() => {
  const wide = box => box.scrollWidth > box.clientWidth + 1 && box.clientWidth > 1;
  const scrolls = box => wide(box) && getComputedStyle(box).overflowX === "auto";
  return [...document.querySelectorAll("main *")]
    .filter(box => wide(box) && getComputedStyle(box).overflowX === "hidden")
    .filter(box => ![...box.querySelectorAll("*")].some(scrolls))
    .map(box => box.className + ": " + box.innerText.slice(0, 60));
}"""
IMAGES = "() => [...document.images].map(image => [image.alt, image.getBoundingClientRect().right])"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_nothing_is_cut_off_and_every_picture_has_words(path, browser, tmp_path):
    lesson = nbformat.read(path, as_version=4)  # with its stored outputs
    notebook_pages.write_page(lesson, path.stem, path.parent, tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / f"{path.stem}.html").as_uri())
    for size in (PHONE, DESKTOP):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert not page.evaluate(CUT_OFF)
        images = page.evaluate(IMAGES)
        assert len(images) >= 3
        assert all(alt.endswith(".") and right <= size["width"] for alt, right in images)
    page.close()
