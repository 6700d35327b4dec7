"""KServe on the embedded node: its CRDs, its settings, and its manager as a program of the holder.

The manager is built from its Go module, and its CRDs, settings and webhooks come from the same module's
`install/v0.19.0/kserve.yaml`. As a program beside the API server it needs no image, no pod and no cert-manager: the
webhooks are reached at an address on the loopback, and the node's own authority signs for it. Settings are what
`manifests/platform/kserve/values.yaml` says to KServe's chart, so that what is tested here is what is installed there.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import yaml

from ci.node import crds, module_files, process, programs
from ci.node.programs import HERE, GoProgram
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from ci.node.process import Process

Json = dict[str, Any]

NAMESPACE = "kserve"
MODULE = "github.com/kserve/kserve"
MANAGER = GoProgram(name="kserve-manager", module=HERE / "kserve", package=f"{MODULE}/cmd/manager")

INSTALL = "install/v0.19.0/kserve.yaml"
_VALUES = Path(__file__).resolve().parents[2] / "manifests" / "platform" / "kserve" / "values.yaml"
_CONFIG = "inferenceservice-config"
_PLURALS = (
    "clusterservingruntimes",
    "clusterstoragecontainers",
    "inferencegraphs",
    "inferenceservices",
    "servingruntimes",
    "trainedmodels",
)
_WEBHOOK_SERVICE = "kserve-webhook-server-service"
_WEBHOOK_PORT = 9443
_HEALTH = "127.0.0.1:9440"
WEBHOOK_KINDS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
# The manager asks for this kind once, at its start: without it, it would never write a route.
_GATEWAY_API_CRD = "customresourcedefinition/httproutes.gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class KServeFiles:
    """What `prepare` leaves for `start`.

    Attributes:
        manager: the manager's program.
        objects: what the node applies of KServe's release manifest, as JSON.
    """

    manager: Path
    objects: Path


@dataclass(frozen=True, slots=True)
class KServe:
    """A running KServe.

    Attributes:
        running: the manager's process.
        domain: suffix of the hostnames of its InferenceServices.
    """

    running: Process
    domain: str


async def prepare(cache: Path) -> KServeFiles:
    """Build the manager and keep its release manifest; the second time both are found.

    Raises:
        ClusterError: a download or the build failed.
    """
    folder = await programs.build(MANAGER, cache)
    install = await module_files.keep(MANAGER, MODULE, INSTALL, cache)
    return KServeFiles(folder / MANAGER.name, await anyio.to_thread.run_sync(_keep_objects, install))


async def keep_chart(cache: Path) -> Path:
    """Keep KServe's own chart `kserve-resources`: our values are tried on it.

    Raises:
        ClusterError: a download failed.
    """
    return await module_files.keep(MANAGER, MODULE, "charts/kserve-resources", cache)


async def start(layout: Layout, plane: ControlPlane, files: KServeFiles) -> KServe:
    """Apply KServe and start its manager; returns once its webhooks answer.

    The Gateway API CRDs must be there before: the manager looks for them once, at its start.

    Raises:
        ClusterError: the API server refused an object, or the manager died or was not ready in time.
    """
    await plane.kubectl("get", "--output=name", _GATEWAY_API_CRD)
    settings = read_settings(_VALUES)
    objects: list[Json] = json.loads(await anyio.Path(files.objects).read_text())
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await plane.kubectl.apply([namespace, configured(objects, settings)])
    await crds.apply(plane.kubectl, [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"])
    running = await start_controller(layout, plane, files.manager, webhook_port=_WEBHOOK_PORT, health=_HEALTH)
    try:
        authority = plane.authority.pair.certificate.read_bytes()
        await plane.kubectl.apply(webhooks(objects, authority, _WEBHOOK_SERVICE, _WEBHOOK_PORT))
        await webhook_answers(plane, running, _refused(), "denied the request")
    except BaseException:
        await running.stop()
        raise
    return KServe(running, settings["controller"]["gateway"]["domain"])


def read_settings(values: Path) -> Json:
    """Give the `kserve` table of the chart's values."""
    settings: Json = yaml.safe_load(values.read_text())["kserve"]
    return settings


def read_install(path: Path) -> list[Json]:
    """Give the objects of a release manifest."""
    return [document for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader) if document]


def _keep_objects(install: Path) -> Path:
    """Write the objects that the node applies beside the manifest: parsing its 2 MB of YAML takes three seconds."""
    path = install.with_suffix(".json")
    if not path.exists():
        objects = read_install(install)
        wanted = [*definitions(objects), *(obj for obj in objects if obj["kind"] in ("ConfigMap", *WEBHOOK_KINDS))]
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(wanted), encoding="utf-8")
        scratch.rename(path)
    return path


def configured(objects: Sequence[Json], settings: Mapping[str, Any]) -> Json:
    """Give KServe's ConfigMap with the settings that its chart would have made of the values.

    Source: `charts/kserve-resources/files/common/configmap-patch.yaml` of KServe v0.19.0.

    Raises:
        ClusterError: the release manifest has no such ConfigMap.
    """
    found = (obj for obj in objects if obj["kind"] == "ConfigMap" and obj["metadata"]["name"] == _CONFIG)
    original = next(found, None)
    if original is None:
        raise ClusterError(f"no ConfigMap {_CONFIG}", where=INSTALL)
    gateway = settings["controller"]["gateway"]
    changes: dict[str, Json] = {
        "deploy": {"defaultDeploymentMode": settings["controller"]["deploymentMode"]},
        "ingress": {
            "enableGatewayApi": gateway["ingressGateway"]["enableGatewayApi"],
            "kserveIngressGateway": gateway["ingressGateway"]["kserveGateway"],
            "disableIstioVirtualHost": gateway["disableIstioVirtualHost"],
            "ingressDomain": gateway["domain"],
        },
        "storageInitializer": {"enableModelcar": settings["storage"]["enableModelcar"]},
    }
    data = dict(original["data"])
    for key, change in changes.items():
        data[key] = json.dumps({**json.loads(data[key]), **change}, indent=2)
    return {**original, "data": data}


def definitions(objects: Sequence[Json]) -> Iterator[Json]:
    """Give the CRDs of the manager, which are those of the chart `kserve-crd`.

    The release manifest has those of two more controllers too, which do not run here; theirs are three quarters of
    its 2 MB, and the API server takes its time over them.
    """
    for obj in objects:
        if obj["kind"] == "CustomResourceDefinition" and obj["spec"]["names"]["plural"] in _PLURALS:
            yield obj


def webhooks(objects: Sequence[Json], authority: bytes, service: str, port: int) -> list[Json]:
    """Give the webhook configurations of one controller, reached at its address on the loopback.

    Args:
        objects: the release manifest.
        authority: PEM certificate that the webhooks' own is verified with.
        service: the Service that the manifest would reach the controller by.
        port: the controller's port.
    """
    return list(_webhooks(objects, authority, service, port))


def client_config(config: Mapping[str, Any], authority: bytes, port: int) -> Json:
    """Give a webhook's `clientConfig` for a program on the loopback instead of a Service."""
    bundle = base64.b64encode(authority).decode()
    return {"url": f"https://127.0.0.1:{port}{config['service']['path']}", "caBundle": bundle}


def _webhooks(objects: Sequence[Json], authority: bytes, service: str, port: int) -> Iterator[Json]:
    for obj in objects:
        if obj["kind"] not in WEBHOOK_KINDS:
            continue
        services = {hook["clientConfig"]["service"]["name"] for hook in obj["webhooks"]}
        if services == {service}:
            hooks = [
                {**hook, "clientConfig": client_config(hook["clientConfig"], authority, port)}
                for hook in obj["webhooks"]
            ]
            yield {
                "apiVersion": obj["apiVersion"],
                "kind": obj["kind"],
                "metadata": {"name": obj["metadata"]["name"]},
                "webhooks": hooks,
            }


async def start_controller(
    layout: Layout, plane: ControlPlane, program: Path, *, webhook_port: int, health: str
) -> Process:
    """Start one of KServe's controllers beside the API server; returns once it says that it is ready.

    Args:
        layout: the node's folders.
        plane: the control plane, whose authority signs for the controller's webhooks.
        program: the controller.
        webhook_port: its webhooks' port on the loopback.
        health: `host:port` of its readiness.

    Raises:
        ClusterError: it died or was not ready in time.
    """
    name = program.name
    serving = plane.authority.issue(f"{name}-webhook", f"{name}-webhook", hosts=("127.0.0.1",))
    # controller-runtime looks for its certificates under the temporary directory.
    temporary = layout.run / name
    certificates = temporary / "k8s-webhook-server" / "serving-certs"
    certificates.mkdir(parents=True)
    (certificates / "tls.crt").symlink_to(serving.certificate)
    (certificates / "tls.key").symlink_to(serving.key)
    return await process.start(
        name,
        [
            str(program),
            f"--webhook-port={webhook_port}",
            f"--health-probe-addr={health}",
            "--metrics-addr=0",  # off: nobody reads them, and 8080 belongs to others
        ],
        logs=layout.logs,
        ready=process.answers(f"http://{health}/readyz"),
        environment={"KUBECONFIG": str(plane.kubeconfig), "POD_NAMESPACE": NAMESPACE, "TMPDIR": str(temporary)},
        timeout_s=120,
    )


async def webhook_answers(plane: ControlPlane, running: Process, refused: Json, words: str) -> None:
    """Await a webhook's answer.

    The API server learns of a webhook a moment after it is applied, and until then lets everything pass. So the proof
    is an object that the API server itself accepts and the webhook refuses.

    Args:
        plane: the control plane.
        running: the controller that serves the webhook.
        refused: the object.
        words: part of what the webhook says of it.

    Raises:
        ClusterError: it does not answer within a minute.
    """
    content = json.dumps(refused).encode()
    with anyio.move_on_after(60):
        while True:
            try:
                await plane.kubectl("create", "--dry-run=server", "--filename=-", content=content)
            except ClusterError as error:
                if words in str(error):
                    return
                if "failed calling webhook" not in str(error):
                    raise
            await anyio.sleep(0.1)
    raise ClusterError(
        "KServe's webhooks do not answer",
        where=f"{refused['kind']} {refused['metadata']['name']}",
        expected="an answer within 60 s",
        next_command=f"less {running.log}",
    )


def _refused() -> Json:
    """An InferenceService whose name KServe's validator refuses: its pattern allows no dots."""
    container = {"name": "kserve-container", "image": "registry.invalid/none"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "servepath.probe", "namespace": NAMESPACE},
        "spec": {"predictor": {"containers": [container]}},
    }
