"""The llm-d path's names, and a `ServingSpec` -> its objects: an LLMInferenceService with a Gateway of its own.

It is compared with nothing: it runs several engines behind KServe's llm-d scheduler, where the other paths run one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servepath.errors import UsageError
from servepath.manifests import manifests_directory
from servepath.serving.model import AutoscalerClass, DeployPath
from servepath.serving.patches import patch, rename, replace, set_flags, set_resources, set_secret, set_variables
from servepath.serving.refusals import refuse_unsupported
from servepath.serving.render import build, check_spec, copy_manifests, write_kustomization

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servepath.serving.model import ServingSpec

KIND = "LLMInferenceService"

_LABEL_LENGTH = 63
_LONGEST_CHILD = "-kserve-self-signed-certs"
_ROOT = "/spec/template/containers/0"


def llmd_name(name: str) -> str:
    """Give the name of the LLMInferenceService and of all that is applied with it."""
    return f"{name}-{DeployPath.LLMD}"


def llmd_namespace(namespace: str) -> str:
    """Give the path's own namespace, which holds its Gateway too."""
    return f"{namespace}-{DeployPath.LLMD}"


def deployment_of(name: str) -> str:
    """Give the name of the Deployment of engines that the controller makes."""
    return f"{llmd_name(name)}-kserve"


def pods_of(name: str) -> dict[str, str]:
    """Give the labels of the engines' pods (KServe v0.19.0, workload_single_node.go:476)."""
    return {
        "app.kubernetes.io/name": llmd_name(name),
        "app.kubernetes.io/part-of": "llminferenceservice",
        "kserve.io/component": "workload",
    }


def url_path(spec: ServingSpec) -> str:
    """Give the prefix that the controller's route takes from each request: `/<namespace>/<name>`."""
    return f"/{llmd_namespace(spec.namespace)}/{llmd_name(spec.name)}"


def container_of(service: Mapping[str, Any]) -> dict[str, Any]:
    """Give the engine's container of an LLMInferenceService."""
    container: dict[str, Any] = service["spec"]["template"]["containers"][0]
    return container


async def render_llmd(
    spec: ServingSpec, gateway_class: str, manifests: Path | None = None
) -> tuple[dict[str, Any], ...]:
    """Build the objects of the llm-d path.

    Args:
        spec: what is served; its namespace is that of the other paths.
        gateway_class: the GatewayClass of the path's own Gateway.
        manifests: the manifests directory; the checkout's own by default.

    Returns:
        The objects in the order in which they are to be applied, every image pinned by digest.

    Raises:
        UsageError: the spec cannot be: an image without digest, a name that is too long, an autoscaler.
        ClusterError: kustomize failed.
    """
    check_llmd(spec)
    with tempfile.TemporaryDirectory(prefix="servepath-render-") as temporary:
        source = (manifests or manifests_directory()) / DeployPath.LLMD
        tree = copy_manifests(source, Path(temporary), spec.profile)
        objects = await build(tree / "overlays" / spec.profile.name)
        overlay = await write_kustomization(
            tree,
            spec.profile.name,
            namespace=llmd_namespace(spec.namespace),
            instance=llmd_name(spec.name),
            components=spec.profile.components,
            patches=_patches(spec, gateway_class, objects),
        )
        objects = await build(overlay)
    refuse_unsupported(objects)
    return objects


def check_llmd(spec: ServingSpec) -> None:
    """Refuse a spec that the path could not serve.

    Raises:
        UsageError: an image is not pinned, a name is too long for the controller's children, or it is to be autoscaled.
    """
    check_spec(spec)
    longest = f"{llmd_name(spec.name)}{_LONGEST_CHILD}"
    if max(len(longest), len(llmd_namespace(spec.namespace))) > _LABEL_LENGTH:
        raise UsageError(
            f"{longest!r} or {llmd_namespace(spec.namespace)!r} is too long",
            where="--name and --namespace",
            expected=f"at most {_LABEL_LENGTH} characters: a longer name the controller would cut",
        )
    if spec.profile.autoscaling.autoscaler is not AutoscalerClass.NONE:
        raise UsageError(
            "the llm-d path is not autoscaled: its controller scales by the Workload Variant Autoscaler alone",
            where="--autoscaler",
            expected="none (docs/llm-d.md)",
        )


def _patches(spec: ServingSpec, gateway_class: str, objects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    engine = next(obj for obj in objects if obj["kind"] == KIND)
    container = container_of(engine)
    name, namespace = llmd_name(spec.name), llmd_namespace(spec.namespace)
    flags = (f"--max-model-len={spec.profile.max_model_len}", *spec.profile.engine_args)
    operations = [
        replace("/spec/model/uri", f"oci://{spec.modelcar_reference}"),
        replace("/spec/model/name", spec.served_model_name),
        replace("/spec/router/gateway/refs/0", {"namespace": namespace, "name": name}),
        replace(f"{_ROOT}/image", spec.engine_image),
        *set_flags(container, flags, f"{_ROOT}/args"),
        *set_resources(spec.profile, f"{_ROOT}/resources"),
        *set_variables(container, {"VLLM_CPU_KVCACHE_SPACE": str(spec.profile.kv_cache_gib)}, f"{_ROOT}/env"),
        *set_secret(container, name, f"{_ROOT}/env"),
    ]
    return [
        rename(engine["metadata"]["name"], name),
        patch(KIND, operations),
        patch("Gateway", [replace("/spec/gatewayClassName", gateway_class)]),
        patch("NetworkPolicy", [replace("/spec/podSelector/matchExpressions/0/values", [name])]),
    ]
