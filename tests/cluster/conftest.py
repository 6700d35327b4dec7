"""The API server and the registry that the cluster tests use, started once inside a holder.

`python -m ci.node test` makes the holder and runs pytest in it; elsewhere the tests are skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from ci.node import control_plane, envoy_gateway, gateway_api, holder, kserve, programs, registry
from ci.node.kubernetes import KUBERNETES
from ci.node.layout import Layout, from_environment
from servepath.cluster.model import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ci.node.control_plane import ControlPlane
    from ci.node.kserve import KServe
    from ci.node.registry import Registry


PODS = Path(__file__).parent / "pods"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests whose pods run last: when their kubelet has gone, nobody takes their pods away any more.

    They cancel watches and kill the API server: the Kubernetes client then leaves a socket to the collector.
    """
    items.sort(key=lambda item: PODS in item.path.parents)
    for item in items:
        if PODS in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def layout() -> Layout:
    """The folders of the holder that pytest runs in."""
    if not holder.is_inside():
        pytest.skip("needs root on Linux and a holder: python -m ci.node test")
    return from_environment()


@pytest.fixture(scope="session")
def plane(layout: Layout) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler; no kubelet."""
    started = anyio.run(control_plane.start, layout, programs.target(KUBERNETES, layout.cache))
    yield started
    anyio.run(started.stop)


@pytest.fixture(scope="session")
def image_registry(layout: Layout) -> Iterator[Registry]:
    """An empty registry at 127.0.0.1:5000."""
    started = anyio.run(registry.start, layout.registry, layout.run, layout.logs)
    yield started
    anyio.run(started.running.stop)


@pytest.fixture(scope="session")
def kserve_running(layout: Layout, plane: ControlPlane) -> Iterator[KServe]:
    """KServe's manager and webhooks on the control plane."""

    async def start() -> KServe:
        await gateway_api.apply(plane, await gateway_api.prepare(layout.cache))
        return await kserve.start(layout, plane, await kserve.prepare(layout.cache))

    started = anyio.run(start)
    yield started
    anyio.run(started.running.stop)


@pytest.fixture(scope="session")
def cluster(plane: ControlPlane, kserve_running: KServe) -> Cluster:  # noqa: ARG001 - KServe must run
    """The control plane with KServe, as servepath sees it; no kubelet and no Gateway."""
    return Cluster(plane.kubeconfig, registry.ADDRESS, "http://127.0.0.1", gateway_class=envoy_gateway.GATEWAY_CLASS)
