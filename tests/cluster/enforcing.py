"""kube-router's network policy controller for the length of a test."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from ci.node import network_policy, packages, programs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout

CHAINS = ("KUBE-ROUTER-INPUT", "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-OUTPUT")


@asynccontextmanager
async def kube_router(layout: Layout, plane: ControlPlane) -> AsyncIterator[None]:
    """kube-router's controller, and afterwards none of its rules."""
    program = programs.target(network_policy.CONTROLLER, layout.cache)
    if packages.missing(network_policy.PACKAGES) or not program.is_dir():
        pytest.skip("kube-router is not built: python -m ci.node prepare")
    running = await network_policy.start(layout, plane)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await running.stop()
            for chain in CHAINS:
                await anyio.run_process(["iptables", "-w", "-F", chain])
