"""A page in a real headless Chromium: what is wrong with it, how it looks, and what it prints."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pypdf import PdfReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, PdfMargins

CHECKS = (Path(__file__).parent / "page_checks.js").read_text()
HEIGHT_PX = 800
TIMEOUT_MS = 180_000.0
"""A machine that builds something beside the tests takes its time to draw a page."""
A4_MARGIN = "12mm"

Scheme = Literal["light", "dark"]


@dataclass(slots=True)
class Opened:
    """An open page, and what it did while it was opened."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by check; empty when nothing is."""
        found: dict[str, Any] = self.page.evaluate(CHECKS)
        own = [url for url in self.requests if not url.startswith("file://")]
        every = {**found, "requests": own, "console": self.complaints}
        return {name: wrong for name, wrong in every.items() if wrong}

    def pdf(self) -> PdfReader:
        """The page as it is printed on A4."""
        margin: PdfMargins = {"top": A4_MARGIN, "bottom": A4_MARGIN, "left": A4_MARGIN, "right": A4_MARGIN}
        return PdfReader(io.BytesIO(self.page.pdf(format="A4", print_background=True, margin=margin)))


@contextmanager
def opened(browser: Browser, file: Path, width_px: int, scheme: Scheme = "light") -> Iterator[Opened]:
    """Open a file as a page of some width."""
    context = browser.new_context(viewport={"width": width_px, "height": HEIGHT_PX}, color_scheme=scheme)
    context.set_default_timeout(TIMEOUT_MS)
    try:
        seen = Opened(context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.goto(file.as_uri())
        yield seen
    finally:
        context.close()
