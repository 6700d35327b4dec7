"""The browser that the report's page is tried in: Debian's Chromium, and a font of a known width."""

from __future__ import annotations

from ci.node import packages

CHROMIUM = "/usr/bin/chromium"
PACKAGES = {"chromium": CHROMIUM, "fonts-dejavu-core": "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"}


async def prepare() -> None:
    """Install what is missing.

    Raises:
        ClusterError: apt failed.
    """
    await packages.install(PACKAGES)
