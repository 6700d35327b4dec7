"""A kubelet and a Gateway for the tests whose pods run. They end with this folder: other tests' pods must not run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import pytest

from ci.node import containerd, envoy_gateway, images, process, storage, tiny_model, worker
from servepath.cluster.model import Cluster
from servepath.modelcar.build import build_and_push
from servepath.modelcar.source.directory import open_source
from servepath.serving.model import Profile
from tests.standin_engine.image import push_standin_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from ci.node.envoy_gateway import Gateway
    from ci.node.kserve import KServe
    from ci.node.layout import Layout
    from ci.node.registry import Registry


@dataclass(frozen=True, slots=True)
class Standin:
    """What is served in these tests.

    Attributes:
        engine: the stand-in engine's image, by digest.
        modelcars: two modelcars of tiny models with other weights, by digest.
        profile: resources and budgets that fit an engine which starts at once.
    """

    engine: str
    modelcars: tuple[str, str]
    profile: Profile


@pytest.fixture(scope="package")
def started_again(plane: ControlPlane) -> Iterator[list[process.Process]]:  # noqa: ARG001 - it ends before its plane
    """API servers that a test has started in the place of the first; they serve all that comes behind it."""
    again: list[process.Process] = []
    yield again
    for one in again:
        one.popen.kill()
        one.popen.wait()


@pytest.fixture(scope="package")
def gateway(
    layout: Layout,
    plane: ControlPlane,
    image_registry: Registry,
    kserve_running: KServe,  # noqa: ARG001 - its namespace has the Gateway
    started_again: list[process.Process],  # noqa: ARG001 - it is taken away while an API server answers
) -> Iterator[Gateway]:
    """A kubelet with volumes, and the Gateway on it."""

    async def start() -> tuple[worker.Worker, Gateway]:
        runtime = await containerd.start(layout, worker.write_cni(layout.run / "cni"))
        joined = await worker.start(layout, plane, runtime)
        await storage.create(plane.kubectl, layout.run / "volumes")
        files = await envoy_gateway.prepare(layout.cache)
        return joined, await envoy_gateway.start(layout, plane, image_registry, files)

    joined, started = anyio.run(start)
    yield started
    # Else later tests' pods are bound to a node that nobody runs, and are never gone.
    anyio.run(plane.kubectl, "delete", f"node/{joined.name}")
    anyio.run(started.running.stop)
    for program in reversed(joined.processes):
        anyio.run(program.stop)


@pytest.fixture(scope="package")
def serving_cluster(plane: ControlPlane, image_registry: Registry, gateway: Gateway) -> Cluster:
    """The cluster as servepath sees it, with a Gateway that answers."""
    return Cluster(plane.kubeconfig, image_registry.address, gateway.url, gateway_class=gateway.gateway_class)


@pytest.fixture(scope="package")
def standin(layout: Layout, image_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Standin:
    """An engine that starts at once, and two models for it."""

    async def push() -> Standin:
        engine = await push_standin_engine(layout.cache, image_registry)
        base = await images.push(images.busybox(), image_registry.address, "servepath/busybox")
        folder = tmp_path_factory.mktemp("models")
        first, second = [await modelcar(folder / f"tiny-{seed}", base, seed) for seed in (0, 1)]
        return Standin(engine, (first, second), PROFILE)

    async def modelcar(directory: Path, base: str, seed: int) -> str:
        tiny_model.write_tiny_model(directory, seed)
        pushed = await build_and_push(open_source(directory), base, image_registry.address, "servepath/tiny")
        return pushed.reference

    return anyio.run(push)


PROFILE = Profile(
    name="cpu-small",
    cpu_request="10m",
    cpu_limit="500m",
    memory_request="32Mi",
    memory_limit="128Mi",
    kv_cache_gib=1,
    max_model_len=2048,
    startup_timeout_s=90,
    request_timeout_s=60,
)
