"""agentgateway on the embedded node: its controller as a program of the holder, its data plane as the pod it makes.

Neither comes from a package registry, so the programs are not built here: $SERVEPATH_AGENTGATEWAY names a folder that
has them as `controller` and `agentgateway`, and agentgateway's two charts in `charts`. What is applied is
`manifests/platform/agentgateway`; only what belongs to this node is patched: the image, and a Service that needs no
load balancer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import yaml

from ci.node import crds, endpoint_picker, images, process
from ci.node.envoy_gateway import Gateway
from ci.node.holder import NODE_ADDRESS
from servepath.errors import ClusterError
from servepath.manifests import manifests_directory
from tests.contract.kubernetes_schemas import documents, shared_crds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ci.node.kubectl import Kubectl
    from ci.node.layout import Layout
    from ci.node.process import Process

Json = dict[str, Any]

VARIABLE = "SERVEPATH_AGENTGATEWAY"
GATEWAY_CLASS = "agentgateway"
NAMESPACE = "agentgateway-system"
CHART_SETTINGS = {"AGW_ENABLE_INFER_EXT": "true", "AGW_XDS_MODE": "tls"}
"""What the chart makes of `manifests/platform/agentgateway/values.yaml` and of its own defaults."""

_GATEWAY = ("--namespace=kserve", "gateway/kserve-ingress-gateway")
_HEALTH = "http://127.0.0.1:9093/readyz"


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of agentgateway.

    Attributes:
        controller: the control plane.
        data_plane: the proxy.
        charts: the folder with its two charts.
    """

    controller: Path
    data_plane: Path
    charts: Path


def find_programs() -> Programs | None:
    """Give the programs that the environment names, None where it names none.

    Raises:
        ClusterError: the folder is named and lacks a program.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    root = Path(folder)
    found = Programs(root / "controller", root / "agentgateway", root / "charts")
    for part in (found.controller, found.data_plane, found.charts):
        if not part.exists():
            raise ClusterError("a part of agentgateway is missing", where=str(part), expected=f"as ${VARIABLE} says")
    return found


async def start(layout: Layout, kubectl: Kubectl, registry: str, programs: Programs) -> Gateway:
    """Start the controller, apply the Gateway and return once it is programmed and accepts connections.

    Args:
        layout: the node's folders.
        kubectl: the node's cluster, which runs pods and serves the Gateway API's kinds.
        registry: the node's registry.
        programs: agentgateway's.

    Raises:
        ClusterError: the controller died, or the Gateway was not programmed in time.
    """
    image = await _push_image(programs.data_plane, registry)
    own = [crd for path in sorted(shared_crds().glob("agentgateway.dev_*.yaml")) for crd in documents(path)]
    # The controller looks for the inference extension's kinds when it starts.
    await crds.apply(kubectl, [*own, *await endpoint_picker.definitions(layout.cache)])
    await kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    running = await _controller(layout, kubectl, programs.controller)
    try:
        rendered = await kubectl("kustomize", str(manifests_directory() / "platform" / "agentgateway"))
        await kubectl.apply([*for_this_node(yaml.safe_load_all(rendered), image)])
        url = await _programmed(kubectl)
        await _accepts(url)
    except BaseException:
        await running.stop()
        raise
    return Gateway(url, GATEWAY_CLASS, running)


def for_this_node(objects: Iterable[Json], image: str) -> Iterable[Json]:
    """Give the objects with the data plane's image, and with a Service that has its address by itself."""
    repository, _, digest = image.partition("@")
    registry, _, name = repository.partition("/")
    for obj in objects:
        if obj["kind"] == "AgentgatewayParameters":
            obj["spec"]["image"] = {"registry": registry, "repository": name, "digest": digest}
            obj["spec"]["service"] = {"spec": {"type": "ClusterIP"}}
        yield obj


async def _push_image(program: Path, registry: str) -> str:
    libraries = await images.shared_libraries(program)
    content = {"agentgateway": program, **{str(path)[1:]: path for path in libraries}}
    files = {name: await anyio.Path(path).read_bytes() for name, path in content.items()}
    image = await anyio.to_thread.run_sync(lambda: images.build(files, entrypoint=("/agentgateway",)))
    return await images.push(image, registry, "servepath/agentgateway")


async def _controller(layout: Layout, kubectl: Kubectl, program: Path) -> Process:
    environment = {
        "KUBECONFIG": str(kubectl.kubeconfig),
        "POD_NAMESPACE": NAMESPACE,
        **CHART_SETTINGS,
        # There is no DNS in the node, so the data plane is told its controller's address.
        "AGW_XDS_SERVICE_HOST": NODE_ADDRESS,
        "AGW_ADDITIONAL_XDS_TLS_HOSTS": NODE_ADDRESS,
        "AGW_DISABLE_LEADER_ELECTION": "true",
    }
    return await process.start(
        "agentgateway", [str(program)], logs=layout.logs, ready=process.answers(_HEALTH), environment=environment
    )


async def _programmed(kubectl: Kubectl) -> str:
    await kubectl("wait", "--for=condition=Programmed", "--timeout=120s", *_GATEWAY)
    await kubectl("wait", "--for=jsonpath={.status.addresses[0].value}", "--timeout=120s", *_GATEWAY)
    address = await kubectl("get", "--output=jsonpath={.status.addresses[0].value}", *_GATEWAY)
    return f"http://{address}"


async def _accepts(url: str) -> None:
    """Await the data plane: the Gateway is programmed before its pod runs."""
    host = url.removeprefix("http://")
    with anyio.move_on_after(120):
        while True:
            try:
                async with await anyio.connect_tcp(host, 80):
                    return
            except OSError:
                await anyio.sleep(0.1)
    raise ClusterError("the Gateway is programmed and accepts no connections", where=url, next_command=f"curl -v {url}")
