"""Each check of a page fails on a page that is broken in that way, and only that check does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.browsing import opened

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

GOOD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">
<style>body {{ font: 16px/1.5 sans-serif; background: #fff; color: #222 }} svg text {{ font-size: 12px }}
svg path {{ stroke: #222; fill: none }}</style></head><body><h1>Title</h1>{body}</body></html>"""
PLOT = '<svg viewBox="0 0 300 100" width="300"><title>p</title><desc>d</desc>{parts}</svg>'
LINE = '<path class="line" d="M10 10L200 80"/>'
LABEL = '<text x="20" y="50">one</text>'

ROW = '<div class="stage" style="{style}"><dt>one</dt><dd class="span">1 s</dd><dd class="track">bar</dd></div>'
BARS = '<dl class="bars">{rows}</dl>'

BROKEN = {
    "overflow": '<div style="width: 2000px; background: #eee">wide</div>',
    "contrast": '<p style="color: #999">faint</p>',
    "contrast-transparent": '<p style="color: rgba(0, 0, 0, .4)">faint</p>',
    "contrast-ground": '<div style="background: #777"><p>dark on dark</p></div>',
    "contrast-plot": PLOT.format(parts='<path style="fill: #555; stroke: none" d="M0 0H300V100H0Z"/>' + LINE + LABEL),
    "plots-empty": PLOT.format(parts=LABEL + '<path class="line" d="M10 10"/>'),
    "plots-cut": PLOT.format(parts=LINE + '<text x="280" y="50">too long for it</text>'),
    "plots-overlap": PLOT.format(parts=LINE + LABEL + '<text x="25" y="52">two</text>'),
    "plots-outside": PLOT.format(parts=LINE + LABEL + '<circle class="dot" cx="900" cy="9" r="3"/>'),
    "plots-unnamed": '<svg viewBox="0 0 300 100" width="300">' + LINE + LABEL + "</svg>",
    "overlaps": '<p style="margin: 0">under</p><p style="margin: -24px 0 0">over</p>',
    "bars-side-by-side": BARS.format(rows=2 * ROW.format(style="float: left; display: flex")),
    "bars-apart": BARS.format(rows=ROW.format(style="")),
    "small": '<p style="font-size: 6px">small</p>',
    "headings": "<h3>skipped</h3>",
    "requests": '<img alt="" src="http://127.0.0.1:9/x.png">',
    "console": "<script>console.error('no')</script>",
    "console-thrown": "<script>throw new Error('no')</script>",
}
# A picture that cannot be had is also said on the console.
ALSO = {"requests": {"console"}}


def problems(browser: Browser, directory: Path, body: str) -> dict[str, list[str]]:
    page = directory / "page.html"
    page.write_text(GOOD.format(body=body))
    with opened(browser, page, 800) as seen:
        seen.page.wait_for_load_state("load")
        return seen.problems()


def test_a_good_page_has_no_problems(browser: Browser, tmp_path: Path) -> None:
    good_bars = BARS.format(rows=2 * ROW.format(style="display: flex"))
    assert problems(browser, tmp_path, "<p>text</p>" + PLOT.format(parts=LINE + LABEL) + good_bars) == {}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_page_is_found(browser: Browser, tmp_path: Path, name: str) -> None:
    check = name.partition("-")[0]
    assert set(problems(browser, tmp_path, BROKEN[name])) == {check} | ALSO.get(check, set())
