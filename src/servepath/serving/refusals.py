"""What servepath refuses to apply, because the cluster would accept it and then do something else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servepath.errors import UsageError

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")

CANARY_REASON = (
    "canaryTrafficPercent has no effect in Standard mode: KServe v0.19.0 reads it in its Knative reconciler alone "
    "(reconcilers/knative/ksvc_reconciler.go:134-152), so all traffic would go to the new revision at once"
)
CANARY_ALTERNATIVE = "two InferenceServices behind one HTTPRoute with weights"
LORA_REASON = (
    "a LoRA adapter cannot be a modelcar: KServe v0.19.0 runs one modelcar for each pod, and that is the model's "
    "(pkg/controller/v1alpha2/llmisvc/workload_lora.go:106)"
)
LORA_ALTERNATIVE = "hf://, s3:// or pvc:// for the adapter; the model itself may be oci://"
INITIALIZER_REASON = (
    "without the storage initializer no model is attached, also none that needs no download: the controller looks at "
    "this first, and at oci:// afterwards (workload_storage.go:95, :139)"
)
INITIALIZER_ALTERNATIVE = "no spec.storageInitializer: for oci:// none is started"
LOCAL_CACHE_REASON = (
    "LocalModelCache does not work with a modelcar: it downloads a storageUri to the nodes and has no handler for "
    "oci://, so the pod would get both"
)
LOCAL_CACHE_ALTERNATIVE = "the modelcar alone: the node's image store is the cache"


def refuse_unsupported(objects: Sequence[Mapping[str, Any]]) -> None:
    """Refuse objects that the cluster would accept and not honour.

    Args:
        objects: Kubernetes objects as parsed from YAML.

    Raises:
        UsageError: `canaryTrafficPercent` in Standard mode, a LocalModelCache, a LoRA adapter as oci://, a modelcar
            that would not be attached, or an image without a digest.
    """
    for obj in objects:
        _refuse_canary(obj)
        _refuse_local_cache(obj)
        _refuse_llmd(obj)
        for image in images_in(obj):
            refuse_unpinned(image, where=place(obj))


def refuse_unpinned(image: str, *, where: str) -> None:
    """Refuse an image reference that is not pinned by digest.

    Raises:
        UsageError: the reference does not end in `@sha256:` and 64 hexadecimal digits.
    """
    if not _DIGEST.search(image):
        raise UsageError(
            f"image {image!r} is not pinned by digest",
            where=where,
            expected="NAME@sha256:… (a tag can move, and the kubelet pulls it again at each start)",
        )


def images_in(node: Any) -> Iterator[str]:
    """Give every image reference of an object: the values of `image`, and what is `oci://` without that."""
    if isinstance(node, Mapping):
        if isinstance(node.get("image"), str):
            yield node["image"]
        if node.get("name") == "STORAGE_URI" and "value" in node:
            yield str(node["value"]).removeprefix("oci://")
        if str(node.get("uri", "")).startswith("oci://"):
            yield node["uri"].removeprefix("oci://")
        for value in node.values():
            yield from images_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from images_in(value)


def place(obj: Mapping[str, Any]) -> str:
    """Name an object for a person: `InferenceService/qwen-kserve`."""
    return f"{obj.get('kind', '?')}/{obj.get('metadata', {}).get('name', '?')}"


def _refuse_canary(obj: Mapping[str, Any]) -> None:
    if obj.get("kind") != "InferenceService":
        return
    annotations = obj.get("metadata", {}).get("annotations") or {}
    if annotations.get("serving.kserve.io/deploymentMode", "Standard") in ("Knative", "Serverless"):
        return
    for component, spec in obj.get("spec", {}).items():
        if isinstance(spec, Mapping) and "canaryTrafficPercent" in spec:
            raise UsageError(CANARY_REASON, where=f"{place(obj)} spec.{component}", expected=CANARY_ALTERNATIVE)


def _refuse_llmd(obj: Mapping[str, Any]) -> None:
    if obj.get("kind") != "LLMInferenceService":
        return
    spec = obj.get("spec", {})
    model = spec.get("model", {})
    for adapter in (model.get("lora") or {}).get("adapters") or []:
        if str(adapter.get("uri", "")).startswith("oci://"):
            raise UsageError(LORA_REASON, where=f"{place(obj)} spec.model.lora", expected=LORA_ALTERNATIVE)
    if (spec.get("storageInitializer") or {}).get("enabled") is False:
        raise UsageError(
            INITIALIZER_REASON, where=f"{place(obj)} spec.storageInitializer", expected=INITIALIZER_ALTERNATIVE
        )


def _refuse_local_cache(obj: Mapping[str, Any]) -> None:
    metadata = obj.get("metadata", {})
    labels = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    asked = any(key.startswith("internal.serving.kserve.io/localmodel") for key in (*labels, *annotations))
    if asked or str(obj.get("kind", "")).startswith("LocalModel"):
        raise UsageError(LOCAL_CACHE_REASON, where=place(obj), expected=LOCAL_CACHE_ALTERNATIVE)
