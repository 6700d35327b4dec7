from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.browsing import Scheme, opened
from tests.browser.conftest import PAGES

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

WIDTHS_PX = (360, 768, 1280)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width_px", WIDTHS_PX)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wrong_with_the_page(
    browser: Browser, pages: dict[str, Path], artefacts: Path, name: str, width_px: int, scheme: Scheme
) -> None:
    with opened(browser, pages[name], width_px, scheme) as seen:
        seen.page.screenshot(path=artefacts / f"{name}-{width_px}-{scheme}.png", full_page=True)
        assert seen.problems() == {}
        for details in seen.page.query_selector_all("details"):
            details.evaluate("one => { one.open = true }")
        assert seen.problems() == {}


@pytest.mark.parametrize("name", PAGES)
def test_the_answer_is_on_the_first_screen_of_a_phone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    with opened(browser, pages[name], 360) as seen:
        for selector in (".badge", "h1"):
            box = seen.page.query_selector(selector)
            assert box
            place = box.bounding_box()
            assert place
            assert place["y"] + place["height"] < 500


def test_the_three_numbers_are_on_the_first_screen_of_a_phone(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["full"], 360) as seen:
        tiles = seen.page.query_selector_all(".tile")
        assert len(tiles) == 3
        place = tiles[2].bounding_box()
        assert place
        assert place["y"] + place["height"] < 640


@pytest.mark.parametrize("name", PAGES)
def test_the_printed_report_has_everything(
    browser: Browser, pages: dict[str, Path], artefacts: Path, name: str
) -> None:
    with opened(browser, pages[name], 1280, "dark") as seen:
        headings = [one.inner_text() for one in seen.page.query_selector_all("h1, h2")]
        plots = len(seen.page.query_selector_all("svg"))
        reader = seen.pdf()
        seen.page.pdf(path=artefacts / f"{name}.pdf", format="A4", print_background=True)
        seen.page.emulate_media(media="print")
        seen.page.set_viewport_size({"width": 720, "height": 1000})
        problems = seen.problems()
    text = " ".join(" ".join(page.extract_text().split()) for page in reader.pages)
    assert 1 <= len(reader.pages) <= (12 if plots > 7 else 6)
    assert all(len(page.extract_text()) > 40 for page in reader.pages)
    for heading in headings:
        assert " ".join(heading.split()) in text
    if plots:
        assert "E2E median" in text
    assert problems == {}


def test_the_printed_report_opens_what_is_folded(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["full"], 1280) as seen:
        text = " ".join(page.extract_text() for page in seen.pdf().pages)
    assert "client late" in text or "saturated" in text
