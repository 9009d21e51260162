"""The decks on a projector: everything fits, nothing is too small to be read, keys move them."""

from pathlib import Path

import pytest

from tests.browser.test_book import LESSONS

PROJECTOR = {"width": 1920, "height": 1080}
READY = "document.body.classList.contains('ready')"
# Of each slide: does it fit, the height of its letters in pixels of 1080, and how full it is.
SLIDES = """slides.map(slide => {
  const content = slide.querySelector(".content");
  const letters = [...content.querySelectorAll("p, li, pre, td, summary")]
    .map(block => parseFloat(getComputedStyle(block).fontSize) * 1080 / 720);
  return { fits: fits(content), smallest: Math.min(...letters), blocks: content.children.length };
})"""


def open_deck(open_page, path: Path):
    page = open_page(f"slides/{path.stem}.html", PROJECTOR)
    page.wait_for_function(READY)
    return page


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_everything_fits_and_can_be_read_from_afar(open_page, path):
    slides = open_deck(open_page, path).evaluate(SLIDES)
    assert len(slides) > 10
    for number, slide in enumerate(slides, start=1):
        assert slide["fits"], number
        assert slide["blocks"] > 0, number
        assert slide["smallest"] is None or slide["smallest"] >= 18, number


def test_keys_and_buttons_move_and_the_address_keeps_the_place(open_page):
    page = open_deck(open_page, LESSONS[0])
    place = page.locator("#place")
    assert place.inner_text().startswith("1 /")
    for key, now in (("ArrowRight", 2), (" ", 3), ("PageUp", 2), ("Home", 1), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert place.inner_text().startswith(f"{now} /"), key
    page.get_by_label("Next slide").click()
    assert page.evaluate("slides.filter(slide => slide.matches('.now')).length") == 1
    page.reload()
    page.wait_for_function(READY)
    assert place.inner_text().startswith("2 /")


def test_a_picture_in_a_deck_moves(open_page):
    page = open_deck(open_page, next(path for path in LESSONS if path.stem == "07_tiles"))
    number = page.evaluate("slides.findIndex(slide => slide.querySelector('.moving figure'))")
    page.evaluate(f"show({number})")
    box = page.locator(".slide.now .moving")
    before = box.inner_html()
    box.locator("input").press("ArrowRight")
    assert box.inner_html() != before
    assert page.locator("#place").inner_text().startswith(f"{number + 1} /"), (
        "the deck moved as well"
    )
