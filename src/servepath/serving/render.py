"""A `ServingSpec` and the manifests -> the objects to apply.

The overlay that is built here is ordinary kustomize on top of `manifests/<path>/overlays/<profile>`: nothing is
known about an object here that is not written there.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import yaml

from servepath.cluster.objects import MANAGED_BY, OWNER
from servepath.errors import ClusterError, UsageError
from servepath.manifests import manifests_directory
from servepath.serving.autoscaling import autoscaling_patches, check_autoscaling, components_of
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.patches import (
    Operation,
    patch,
    rename,
    replace,
    set_flags,
    set_resources,
    set_secret,
    set_variables,
)
from servepath.serving.refusals import refuse_unpinned, refuse_unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servepath.serving.model import Profile

INSTANCE = "app.kubernetes.io/instance"
MODELCAR_CONTAINERS = ("modelcar-init", "modelcar")
"""What KServe's webhook adds to a pod, unless containers of these names are there."""
CLOSED = "-closed"
"""Ends the name of the KServe path's HTTPRoute, which closes what KServe's own leave open."""

_CLAIM_NAME = "spec/predictor/volumes/persistentVolumeClaim/claimName"
_NAME_REFERENCES = {
    "nameReference": [
        {
            "kind": "PersistentVolumeClaim",
            "fieldSpecs": [{"kind": "InferenceService", "path": _CLAIM_NAME}],
        }
    ]
}
"""Where a custom resource names what is renamed: kustomize knows it of Kubernetes' own kinds alone."""
_LABEL = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_LABEL_LENGTH = 63
_ENGINE = {
    ServingPath.RAW: ("Deployment", "/spec/template/spec"),
    ServingPath.KSERVE: ("InferenceService", "/spec/predictor"),
}


@dataclass(frozen=True, slots=True)
class GatewayRef:
    """The Gateway that both paths are reached by; KServe's configuration must name the same."""

    namespace: str = "kserve"
    name: str = "kserve-ingress-gateway"


def object_name(spec: ServingSpec, path: ServingPath) -> str:
    """Give the name of a path's objects: `<name>-raw` or `<name>-kserve`."""
    return f"{spec.name}-{path.value}"


def host_of(spec: ServingSpec, path: ServingPath) -> str:
    """Give the hostname of a path, in the form that KServe's domain template gives: `<object>-<namespace>.<domain>`."""
    return f"{object_name(spec, path)}-{spec.namespace}.{spec.domain}"


async def render(
    spec: ServingSpec,
    path: ServingPath,
    *,
    gateway: GatewayRef | None = None,
    manifests: Path | None = None,
) -> tuple[dict[str, Any], ...]:
    """Build the objects of one serving path.

    Args:
        spec: what is served.
        path: how.
        gateway: the Gateway of the path's HTTPRoute, whose data plane alone reaches the engine.
        manifests: the manifests directory; the checkout's own by default.

    Returns:
        The objects in the order in which they are to be applied, every image pinned by digest.

    Raises:
        UsageError: the spec cannot be: an image without digest, a name that is no DNS label, `canaryTrafficPercent`.
        ClusterError: kustomize failed.
    """
    check_spec(spec)
    with tempfile.TemporaryDirectory(prefix="servepath-render-") as temporary:
        overlay = await write_overlay(
            spec, path, Path(temporary), gateway or GatewayRef(), manifests or manifests_directory()
        )
        objects = await build(overlay)
    refuse_unsupported(objects)
    return objects


def check_spec(spec: ServingSpec) -> None:
    """Refuse a spec that no cluster could serve.

    Raises:
        UsageError: an image or the modelcar is not pinned, a name does not fit a DNS label of the hostnames, or the
            numbers of replicas cannot be.
    """
    check_autoscaling(spec.profile.autoscaling, spec.profile.components)
    refuse_unpinned(spec.engine_image, where="engine image")
    refuse_unpinned(spec.modelcar_reference, where="modelcar")
    check_names(spec.namespace, spec.name)


def check_names(namespace: str, name: str) -> None:
    """Refuse names of which the hostnames cannot be made.

    Raises:
        UsageError: they do not fit a DNS label.
    """
    for path in ServingPath:
        label = f"{name}-{path.value}-{namespace}"
        # KServe's own objects of the path add "-predictor" to the name.
        longest = max(len(label), len(f"{name}-{path.value}-predictor"))
        if not _LABEL.match(label) or longest > _LABEL_LENGTH:
            raise UsageError(
                f"{label!r} is not a DNS label",
                where="name and namespace",
                expected=f"lower case letters, digits and dashes, at most {_LABEL_LENGTH} characters",
            )


async def write_overlay(
    spec: ServingSpec, path: ServingPath, directory: Path, gateway: GatewayRef, manifests: Path
) -> Path:
    """Copy a path's manifests into a directory and write the overlay `rendered` beside its overlays.

    Returns:
        The overlay's directory: `kubectl apply -k` accepts it.
    """
    tree = copy_manifests(manifests / path.value, directory, spec.profile)
    engine = _engine_object(await build(tree / "overlays" / spec.profile.name), path)
    return await write_kustomization(
        tree,
        spec.profile.name,
        namespace=spec.namespace,
        instance=object_name(spec, path),
        components=(*spec.profile.components, *components_of(spec.profile.autoscaling)),
        patches=_patches(spec, path, engine, gateway),
    )


def copy_manifests(source: Path, directory: Path, profile: Profile) -> Path:
    """Copy a path's manifests into a directory; gives the copy.

    Raises:
        UsageError: the path has no overlay of the profile's name, or no such component.
    """
    overlays = source / "overlays"
    if not (overlays / profile.name).is_dir():
        there = sorted(found.name for found in overlays.iterdir())
        raise UsageError(f"no overlay is named {profile.name!r}", where=str(overlays), expected=" or ".join(there))
    for component in profile.components:
        if not (source / "components" / component).is_dir():
            raise UsageError(f"no component is named {component!r}", where=str(source / "components"))
    tree = directory / source.name
    shutil.copytree(source, tree)
    return tree


async def write_kustomization(  # noqa: PLR0913
    tree: Path,
    parent: str,
    *,
    namespace: str,
    instance: str,
    components: Sequence[str] = (),
    patches: Sequence[dict[str, Any]],
) -> Path:
    """Write the overlay `rendered` on another one of a path's manifests; gives its directory."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [f"../{parent}"],
        "components": [f"../../components/{component}" for component in components],
        "labels": [
            {"pairs": {INSTANCE: instance}, "includeSelectors": True},
            {"pairs": {MANAGED_BY: OWNER}, "includeTemplates": True},
        ],
        "patches": list(patches),
        "configurations": ["name-references.yaml"],
    }
    overlay = tree / "overlays" / "rendered"
    overlay.mkdir()
    await anyio.Path(overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization, sort_keys=False))
    await anyio.Path(overlay / "name-references.yaml").write_text(yaml.safe_dump(_NAME_REFERENCES))
    return overlay


async def build(overlay: Path) -> tuple[dict[str, Any], ...]:
    """Run `kubectl kustomize` on a directory and parse what it prints.

    Raises:
        ClusterError: kubectl is missing or kustomize refuses the directory.
    """
    try:
        done = await anyio.run_process(["kubectl", "kustomize", str(overlay)], check=False)
    except FileNotFoundError as error:
        raise ClusterError("kubectl is not installed", where="PATH", expected="kubectl 1.30 or newer") from error
    if done.returncode != 0:
        raise ClusterError(
            f"kustomize failed: {done.stderr.decode(errors='replace').strip()}",
            where=str(overlay),
            next_command=f"kubectl kustomize {overlay}",
        )
    documents = await anyio.to_thread.run_sync(lambda: list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader)))
    return tuple(document for document in documents if document)


def engine_container(obj: Mapping[str, Any], path: ServingPath) -> dict[str, Any]:
    """Give the engine's container of the object that carries it (a Deployment or an InferenceService)."""
    pod = obj["spec"]["template"]["spec"] if path is ServingPath.RAW else obj["spec"]["predictor"]
    container: dict[str, Any] = pod["containers"][0]
    return container


def _engine_object(objects: Sequence[dict[str, Any]], path: ServingPath) -> dict[str, Any]:
    kind, _ = _ENGINE[path]
    return next(obj for obj in objects if obj["kind"] == kind)


def _patches(
    spec: ServingSpec, path: ServingPath, engine: Mapping[str, Any], gateway: GatewayRef
) -> list[dict[str, Any]]:
    kind, root = _ENGINE[path]
    name = object_name(spec, path)
    base = engine["metadata"]["name"]
    container = engine_container(engine, path)
    flags = (
        f"--served-model-name={spec.served_model_name}",
        f"--max-model-len={spec.profile.max_model_len}",
        *spec.profile.engine_args,
    )
    operations = [
        replace(f"{root}/containers/0/image", spec.engine_image),
        *set_flags(container, flags, f"{root}/containers/0/args"),
        *set_resources(spec.profile, f"{root}/containers/0/resources"),
        *set_variables(container, _variables(spec), f"{root}/containers/0/env"),
        *set_secret(container, name, f"{root}/containers/0/env"),
    ]
    if path is ServingPath.KSERVE:
        operations.append(replace("/spec/predictor/timeout", spec.profile.request_timeout_s))
        operations += _modelcar_operations(spec, engine["spec"]["predictor"])
    else:
        operations += [
            replace(f"{root}/initContainers/0/image", spec.modelcar_reference),
            replace(f"{root}/initContainers/0/env/0/value", spec.modelcar_reference.partition("@")[2]),
        ]
    return [
        rename(base, name),
        rename(f"{base}{CLOSED}", f"{name}{CLOSED}"),
        patch(kind, operations),
        patch("HTTPRoute", _route_operations(spec, path, gateway)),
        patch("NetworkPolicy", _policy_operations(gateway)),
        *autoscaling_patches(
            spec.profile.autoscaling,
            path,
            name=name,
            namespace=spec.namespace,
            startup_timeout_s=spec.profile.startup_timeout_s,
        ),
    ]


def _modelcar_operations(spec: ServingSpec, predictor: Mapping[str, Any]) -> list[Operation]:
    """Give the model to the modelcar's containers, where an overlay writes them down (components/restricted)."""
    return [
        replace(f"/spec/predictor/{kind}/{index}/image", spec.modelcar_reference)
        for kind in ("initContainers", "containers")
        for index, one in enumerate(predictor.get(kind, ()))
        if one["name"] in MODELCAR_CONTAINERS
    ]


def _variables(spec: ServingSpec) -> dict[str, str]:
    """Give what either path is told by environment; each has but some of them."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(spec.profile.kv_cache_gib),
        "STORAGE_URI": f"oci://{spec.modelcar_reference}",
        "MODELCAR_DIGEST": spec.modelcar_reference.partition("@")[2],
    }


def _route_operations(spec: ServingSpec, path: ServingPath, gateway: GatewayRef) -> list[Operation]:
    """Place a path's one HTTPRoute here: raw's leads to the engine, the other closes what KServe's own leave open."""
    name = object_name(spec, path)
    service, hosts = name, [host_of(spec, path)]
    if path is ServingPath.KSERVE:
        service = f"{name}-predictor"
        hosts.append(f"{service}-{spec.namespace}.{spec.domain}")
    return [
        replace("/spec/parentRefs/0/namespace", gateway.namespace),
        replace("/spec/parentRefs/0/name", gateway.name),
        replace("/spec/hostnames", hosts),
        replace("/spec/rules/0/backendRefs/0/name", service),
        replace("/spec/rules/0/timeouts/request", f"{spec.profile.request_timeout_s}s"),
    ]


def _policy_operations(gateway: GatewayRef) -> list[Operation]:
    """Admit the data plane of this Gateway: beside it, or in Envoy Gateway's own namespace."""
    admitted = "/spec/ingress/0/from"
    return [
        replace(f"{admitted}/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name", gateway.namespace),
        replace(f"{admitted}/0/podSelector/matchExpressions/0/values", [gateway.name]),
        replace(f"{admitted}/1/podSelector/matchExpressions/0/values", [gateway.name]),
    ]
