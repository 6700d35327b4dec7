"""A cluster small enough for a unit test: an API server in memory, what KServe and a gateway do, and real HTTP.

What it does not have (probes, images, a data plane's delays) is in `tests/cluster/pods/test_canary.py`.
"""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.canary.route import read_weights
from servepath.cluster.model import Cluster
from servepath.serving.model import ServingSpec
from servepath.serving.profiles import CPU_SMALL
from servepath.serving.slots import Slot, route_name, slot_name
from tests.unit.canary.split_gateway import SplitGateway, split_gateway
from tests.unit.cli.conftest import write_kubeconfig
from tests.unit.promotion.api_server import World, api_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAMESPACE, NAME = "servepath", "tiny"
OLD, NEW = (f"registry/tiny@sha256:{digit * 64}" for digit in "ab")
SPEC = ServingSpec(NAMESPACE, NAME, "tiny", OLD, f"registry/engine@sha256:{'e' * 64}", CPU_SMALL)

Json = dict[str, Any]


@dataclass(slots=True)
class SmallCluster:
    """The cluster as servepath sees it, and as a test looks into it."""

    cluster: Cluster
    world: World
    gateway: SplitGateway

    def route(self) -> Json | None:
        return self.world.objects.get(("httproutes", NAMESPACE, route_name(NAME)))

    def weights(self) -> dict[Slot, int]:
        route = self.route()
        return read_weights(route) if route else {Slot.BLUE: 100}

    def runs(self) -> set[Slot]:
        """The slots whose engine runs."""
        running = {name for kind, _, name in self.world.objects if kind == "deployments"}
        return {slot for slot in Slot if f"{_service(slot)}-predictor" in running}

    def follow(self) -> None:
        """Lead requests as the route says now; a slot without an engine answers as a gateway does without a backend."""
        with self.world.lock:
            route, weights, runs = self.route(), self.weights(), self.runs()
        self.gateway.weights = {slot: weights.get(slot, 0) for slot in Slot}
        self.gateway.names_slots = route is not None
        self.gateway.revision = int(route["metadata"]["annotations"]["servepath.dev/revision"]) if route else 0
        self.gateway.missing = set(Slot) - runs


@asynccontextmanager
async def small_cluster(directory: Path) -> AsyncIterator[SmallCluster]:
    """Run it until the block ends."""
    with api_server() as world:
        async with split_gateway() as gateway:
            kubeconfig = write_kubeconfig(directory / "kubeconfig", world.address)
            small = SmallCluster(Cluster(kubeconfig, "registry.test", gateway.base_url), world, gateway)
            world.reconcile = reconcile
            gateway.follow = small.follow
            yield small


def reconcile(world: World) -> None:
    """Do what KServe does: a Deployment that is rolled out at once for each InferenceService that is not stopped."""
    services = {name: obj for (kind, _, name), obj in list(world.objects.items()) if kind == "inferenceservices"}
    for name, service in services.items():
        stopped = (service["metadata"].get("annotations") or {}).get("serving.kserve.io/stop") == "true"
        deployment = ("deployments", NAMESPACE, f"{name}-predictor")
        if stopped:
            if deployment in world.objects:
                world.remove(*deployment)
            continue
        template = _template(service)
        present = world.objects.get(deployment)
        if present is None or present["spec"]["template"] != template:
            world.put("deployments", NAMESPACE, _deployment(deployment[2], template))
        if "status" not in service:
            ready = [{"type": "Ready", "status": "True"}]
            host = f"http://{name}-{NAMESPACE}.servepath.test"
            world.put("inferenceservices", NAMESPACE, {**service, "status": {"conditions": ready, "url": host}})
    for kind, namespace, name in list(world.objects):
        if kind == "secrets":
            _keep_as_data(world.objects[kind, namespace, name])
        if kind == "deployments" and name.removesuffix("-predictor") not in services:
            world.remove(kind, namespace, name)


def _keep_as_data(secret: Json) -> None:
    for name, value in secret.pop("stringData", {}).items():
        secret.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()


def _template(service: Json) -> Json:
    predictor = service["spec"]["predictor"]
    return {
        "metadata": {"annotations": predictor.get("annotations") or {}},
        "spec": {"containers": predictor["containers"]},
    }


def _deployment(name: str, template: Json) -> Json:
    counts = {"updatedReplicas": 1, "replicas": 1, "availableReplicas": 1, "observedGeneration": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "generation": 1},
        "spec": {"replicas": 1, "template": template, "selector": {"matchLabels": {"app": name}}},
        "status": counts,
    }


def _service(slot: Slot) -> str:
    return f"{slot_name(NAME, slot)}-kserve"
