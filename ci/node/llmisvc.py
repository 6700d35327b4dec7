"""KServe's controller of LLMInferenceServices beside the API server, with its kinds and its presets: for the tests.

It is built inside KServe's own module, where that one's go.sum holds. The pools that it makes are those of the Gateway
API Inference Extension, whose kinds the same release manifest has; no data plane of the node routes to them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from ci.node import crds, kserve, module_files, programs
from ci.node.programs import HERE, GoProgram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from ci.node.process import Process

Json = dict[str, Any]

CONTROLLER = GoProgram(
    name="llmisvc-controller", module=HERE / "kserve", package="./cmd/llmisvc", dependency=kserve.MODULE
)
CHARTS = ("kserve-llmisvc-resources", "kserve-runtime-configs")

_PRESETS = "install/v0.19.0/kserve-cluster-resources.yaml"
_PRESET = "LLMInferenceServiceConfig"
_GROUPS = ("inference.networking.k8s.io", "inference.networking.x-k8s.io")
_PLURALS = ("llminferenceservices", "llminferenceserviceconfigs")
_WEBHOOK_SERVICE = "llmisvc-webhook-server-service"
_WEBHOOK_PORT = 9444
_HEALTH = "127.0.0.1:9441"


@dataclass(frozen=True, slots=True)
class LlmisvcFiles:
    """What `prepare` leaves for `start`.

    Attributes:
        controller: the controller's program.
        objects: kinds, webhooks and presets, as JSON.
    """

    controller: Path
    objects: Path


async def prepare(cache: Path) -> LlmisvcFiles:
    """Build the controller and keep what it needs; the second time both are found.

    Raises:
        ClusterError: a download or the build failed.
    """
    folder = await programs.build(CONTROLLER, cache)
    install = await module_files.keep(kserve.MANAGER, kserve.MODULE, kserve.INSTALL, cache)
    presets = await module_files.keep(kserve.MANAGER, kserve.MODULE, _PRESETS, cache)
    objects = await anyio.to_thread.run_sync(_keep_objects, install, presets)
    return LlmisvcFiles(folder / CONTROLLER.name, objects)


async def keep_charts(cache: Path) -> dict[str, Path]:
    """Keep KServe's own charts of the llm-d path, by name: our values are tried on them.

    Raises:
        ClusterError: a download failed.
    """
    return {name: await module_files.keep(kserve.MANAGER, kserve.MODULE, f"charts/{name}", cache) for name in CHARTS}


async def start(layout: Layout, plane: ControlPlane, files: LlmisvcFiles) -> Process:
    """Start the controller on a control plane that has KServe's settings and the Gateway API.

    Raises:
        ClusterError: the API server refused an object, or the controller died or was not ready in time.
    """
    objects: list[Json] = json.loads(await anyio.Path(files.objects).read_text())
    authority = plane.authority.pair.certificate.read_bytes()
    await crds.apply(plane.kubectl, list(definitions(objects, authority)))
    running = await kserve.start_controller(layout, plane, files.controller, webhook_port=_WEBHOOK_PORT, health=_HEALTH)
    try:
        await plane.kubectl.apply(kserve.webhooks(objects, authority, _WEBHOOK_SERVICE, _WEBHOOK_PORT))
        await kserve.webhook_answers(plane, running, _refused(), "parallelism must be configured")
        await plane.kubectl.apply([obj for obj in objects if obj["kind"] == _PRESET])
    except BaseException:
        await running.stop()
        raise
    return running


def definitions(objects: Sequence[Json], authority: bytes) -> Iterator[Json]:
    """Give the controller's kinds, whose conversion is reached on the loopback, and those of the pools.

    Args:
        objects: the release manifest.
        authority: PEM certificate that the conversion's own is verified with.
    """
    for obj in objects:
        if obj["kind"] != "CustomResourceDefinition":
            continue
        spec = obj["spec"]
        if spec["group"] in _GROUPS:
            yield obj
        elif spec["names"]["plural"] in _PLURALS:
            webhook = spec["conversion"]["webhook"]
            client = kserve.client_config(webhook["clientConfig"], authority, _WEBHOOK_PORT)
            conversion = {"strategy": "Webhook", "webhook": {**webhook, "clientConfig": client}}
            yield {**obj, "spec": {**spec, "conversion": conversion}}


def _keep_objects(install: Path, presets: Path) -> Path:
    """Write the objects beside the manifest: parsing its 2 MB of YAML takes three seconds."""
    path = install.with_suffix(".llmisvc.json")
    if not path.exists():
        wanted = ("CustomResourceDefinition", *kserve.WEBHOOK_KINDS)
        objects = [obj for obj in kserve.read_install(install) if obj["kind"] in wanted]
        objects += [obj for obj in kserve.read_install(presets) if obj["kind"] == _PRESET]
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(objects), encoding="utf-8")
        scratch.rename(path)
    return path


def _refused() -> Json:
    """An LLMInferenceService that the validator refuses: workers, and no word on what they do in parallel."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "servepath-probe", "namespace": kserve.NAMESPACE},
        "spec": {
            "model": {"uri": "oci://registry.invalid/none"},
            "worker": {"containers": [{"name": "main", "image": "registry.invalid/none"}]},
        },
    }
