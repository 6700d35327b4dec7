"""A node whose Gateway is agentgateway's. The tests run where $SERVEPATH_AGENTGATEWAY names its programs.

SERVEPATH_AGENTGATEWAY=DIR python -m ci.node test tests/gateway
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from ci.node import containerd, endpoint_picker, programs, storage, worker
from tests.cluster.conftest import anyio_backend, image_registry, kserve_running, layout, plane
from tests.cluster.pods.conftest import serving_cluster, standin
from tests.gateway import agentgateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from ci.node.envoy_gateway import Gateway
    from ci.node.kserve import KServe
    from ci.node.layout import Layout
    from ci.node.registry import Registry
    from tests.gateway.agentgateway import Programs

__all__ = ["anyio_backend", "image_registry", "kserve_running", "layout", "plane", "serving_cluster", "standin"]


@pytest.fixture(scope="session", autouse=True)
def agentgateway_programs() -> Programs:
    """agentgateway's controller and data plane."""
    found = agentgateway.find_programs()
    if found is None:
        pytest.skip(f"agentgateway's programs are nowhere: ${agentgateway.VARIABLE} names no folder")
    return found


@pytest.fixture(scope="session")
def picker(layout: Layout) -> Path:
    """The endpoint picker."""
    folder = programs.target(endpoint_picker.PICKER, layout.cache)
    if not folder.is_dir():
        pytest.skip("the endpoint picker is not built: python -m ci.node.endpoint_picker")
    return folder / endpoint_picker.PICKER.name


@pytest.fixture(scope="package")
def gateway(
    agentgateway_programs: Programs,
    layout: Layout,
    plane: ControlPlane,
    image_registry: Registry,
    kserve_running: KServe,  # noqa: ARG001 - its namespace has the Gateway
) -> Iterator[Gateway]:
    """A kubelet with volumes, and agentgateway on it."""

    async def start() -> tuple[worker.Worker, Gateway]:
        runtime = await containerd.start(layout, worker.write_cni(layout.run / "cni"))
        joined = await worker.start(layout, plane, runtime)
        await storage.create(plane.kubectl, layout.run / "volumes")
        registry = image_registry.address
        return joined, await agentgateway.start(layout, plane.kubectl, registry, agentgateway_programs)

    joined, started = anyio.run(start)
    yield started
    anyio.run(started.running.stop)
    for process in reversed(joined.processes):
        anyio.run(process.stop)
