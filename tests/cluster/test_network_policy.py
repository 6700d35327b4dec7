"""The engines' NetworkPolicy on a real enforcer: kube-router's controller, which k3s embeds too.

There is no kubelet: a pod is a Pod object with an address, and a network namespace that has that address.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from ci.node.holder import NODE_ADDRESS
from ci.node.worker import NODE_NAME
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import CPU_SMALL
from servepath.serving.render import render
from tests.cluster.enforcing import kube_router
from tests.cluster.unschedulable import IMAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

SPEC = ServingSpec("policed", "smol", "smol", IMAGE, IMAGE, CPU_SMALL)
BESIDE = {"gateway.networking.k8s.io/gateway-name": "kserve-ingress-gateway"}
ENVOY = {"gateway.envoyproxy.io/owning-gateway-name": "kserve-ingress-gateway"}
ELSEWHERE = "elsewhere"
API_PORT = 6443
PORT = 8080
WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class FakePod:
    """A Pod without a kubelet: its name is also its network namespace's."""

    name: str
    namespace: str
    address: str
    labels: Mapping[str, str]


OTHERS = (
    FakePod("agentgateway", "kserve", "10.245.0.3", BESIDE),
    FakePod("envoy", "envoy-gateway-system", "10.245.0.4", ENVOY),
    # Labels are anybody's to set; the namespace of a gateway is not.
    FakePod("pretender", ELSEWHERE, "10.245.0.5", {**BESIDE, **ENVOY}),
    FakePod("neighbour", SPEC.namespace, "10.245.0.6", {"app.kubernetes.io/name": "another"}),
)


async def connects(source: str, address: str, port: int) -> bool:
    """Whether a connection is made from a pod, or from the node itself."""
    inside = () if source == "node" else ("ip", "netns", "exec", source)
    command = [*inside, "timeout", "3", "bash", "-c", f"< /dev/tcp/{address}/{port}"]
    return (await anyio.run_process(command, check=False)).returncode == 0


async def until_connects(source: str, address: str, *, wanted: bool) -> None:
    with anyio.fail_after(WITHIN_S):
        while await connects(source, address, PORT) is not wanted:
            pass


@asynccontextmanager
async def network_of(pods: tuple[FakePod, ...]) -> AsyncIterator[None]:
    """A routed link and a server on the engines' port for each pod, as the node's CNI makes them."""
    servers = []
    try:
        for number, pod in enumerate(pods):
            link, inside = f"policed{number}", ("ip", "-n", pod.name)
            for command in (
                ("ip", "netns", "add", pod.name),
                ("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod.name),
                ("ip", "link", "set", link, "up"),
                (*inside, "link", "set", "eth0", "up"),
                (*inside, "link", "set", "lo", "up"),
                (*inside, "addr", "add", f"{pod.address}/32", "dev", "eth0"),
                ("ip", "addr", "add", "10.245.0.1/32", "dev", link),
                ("ip", "route", "add", f"{pod.address}/32", "dev", link),
                (*inside, "route", "add", "10.245.0.1", "dev", "eth0"),
                (*inside, "route", "add", "default", "via", "10.245.0.1"),
            ):
                await anyio.run_process(command)
            serve = ["ip", "netns", "exec", pod.name, sys.executable, "-m", "http.server", str(PORT), "-d", "/mnt"]
            servers.append(await anyio.open_process(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for pod in pods:
            await until_connects("node", pod.address, wanted=True)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            for server in servers:
                server.kill()
                await server.aclose()
            for pod in pods:
                await anyio.run_process(("ip", "netns", "del", pod.name), check=False)


@asynccontextmanager
async def objects_of(plane: ControlPlane, pods: tuple[FakePod, ...]) -> AsyncIterator[None]:
    """The pods' objects on a node of this name, and afterwards none of them."""
    namespaces = sorted({pod.namespace for pod in pods})
    made = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME}}]
    made += [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": one}} for one in namespaces]
    try:
        await plane.kubectl.apply(made)
        await report(plane, "node", NODE_NAME, {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]})
        for pod in pods:
            await plane.kubectl(
                "wait", f"-n={pod.namespace}", "--for=create", "serviceaccount/default", "--timeout=30s"
            )
            await plane.kubectl.apply([pod_object(pod)])
            addresses = {"podIP": pod.address, "podIPs": [{"ip": pod.address}], "hostIP": NODE_ADDRESS}
            await report(plane, "pod", pod.name, {"phase": "Running", **addresses}, f"-n={pod.namespace}")
        yield
    finally:
        with anyio.CancelScope(shield=True):
            for pod in pods:
                await plane.kubectl("delete", f"-n={pod.namespace}", "pod", pod.name, "--force", "--ignore-not-found")
            # The gateways' namespaces are other tests' too.
            await plane.kubectl("delete", "namespaces", SPEC.namespace, ELSEWHERE, "--ignore-not-found")
            await plane.kubectl("delete", "node", NODE_NAME, "--ignore-not-found")


async def report(plane: ControlPlane, kind: str, name: str, status: dict[str, Any], *where: str) -> None:
    """Write an object's status, as a kubelet would."""
    patch = json.dumps({"status": status})
    await plane.kubectl("patch", *where, kind, name, "--subresource=status", "--type=merge", f"--patch={patch}")


def pod_object(pod: FakePod) -> dict[str, Any]:
    container = {"name": "x", "image": IMAGE, "ports": [{"containerPort": PORT}]}
    spec = {"nodeName": NODE_NAME, "tolerations": [{"operator": "Exists"}], "containers": [container]}
    metadata = {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def reached(engine: FakePod) -> dict[str, bool]:
    """What passes to the engine and from it."""
    passes = {f"{one.name} to the engine": await connects(one.name, engine.address, PORT) for one in OTHERS}
    passes["the node to the engine"] = await connects("node", engine.address, PORT)
    passes |= {f"the engine to {one.name}": await connects(engine.name, one.address, PORT) for one in OTHERS}
    passes["the engine to the API server"] = await connects(engine.name, NODE_ADDRESS, API_PORT)
    passes["the engine to itself"] = await connects(engine.name, "127.0.0.1", PORT)
    passes["the neighbour to the API server"] = await connects("neighbour", NODE_ADDRESS, API_PORT)
    return passes


ALLOWED = {
    "agentgateway to the engine",
    "envoy to the engine",
    "the node to the engine",
    "the engine to itself",
    "the neighbour to the API server",
}


@pytest.mark.parametrize("path", list(ServingPath))
async def test_the_gateway_alone_reaches_the_engine_and_the_engine_reaches_nothing(
    layout: Layout, plane: ControlPlane, path: ServingPath
) -> None:
    objects = {obj["kind"]: obj for obj in await render(SPEC, path)}
    made = objects["Deployment"]["spec"]["template"] if path is ServingPath.RAW else objects["InferenceService"]
    engine = FakePod("engine", SPEC.namespace, "10.245.0.2", made["metadata"]["labels"])
    pods = (engine, *OTHERS)
    async with objects_of(plane, pods), network_of(pods):
        await plane.kubectl.apply([objects["NetworkPolicy"]])
        assert set((await reached(engine)).values()) == {True}, "a policy that nothing enforces stops nobody"
        async with kube_router(layout, plane):
            await until_connects("pretender", engine.address, wanted=False)
            passes = await reached(engine)
            assert {what for what, passed in passes.items() if passed} == ALLOWED
            await plane.kubectl("delete", f"-n={SPEC.namespace}", "networkpolicy", f"smol-{path}")
            await until_connects("pretender", engine.address, wanted=True)
            assert set((await reached(engine)).values()) == {True}
