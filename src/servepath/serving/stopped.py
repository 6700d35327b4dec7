"""What a stopped path looks like, and what makes it one: the cluster's own words, no state of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.serving.model import ServingPath

if TYPE_CHECKING:
    from collections.abc import Mapping

STOP_ANNOTATION = "serving.kserve.io/stop"
"""KServe's: on an InferenceService its controller then deletes Deployment, Service and routes (KServe v0.19.0,
pkg/controller/v1beta1/inferenceservice/components/predictor.go:219)."""

ENGINE_KIND = {ServingPath.RAW: "Deployment", ServingPath.KSERVE: "InferenceService"}
"""The kind of the object that carries a path's engine."""


def is_stopped(engine: Mapping[str, Any], path: ServingPath) -> bool:
    """Tell whether a path is stopped, from the object that carries its engine."""
    if path is ServingPath.RAW:
        return bool(engine["spec"].get("replicas", 1) == 0)
    annotations = engine["metadata"].get("annotations") or {}
    return str(annotations.get(STOP_ANNOTATION, "")).lower() == "true"


def switch_patch(path: ServingPath, *, stopped: bool) -> dict[str, Any]:
    """Give the merge patch that stops a path or starts it."""
    if path is ServingPath.RAW:
        return {"spec": {"replicas": 0 if stopped else 1}}
    return {"metadata": {"annotations": {STOP_ANNOTATION: "true" if stopped else None}}}


def pod_labels(engine: Mapping[str, Any], path: ServingPath) -> dict[str, str]:
    """Give the labels of a path's pods."""
    if path is ServingPath.KSERVE:
        return {"serving.kserve.io/inferenceservice": str(engine["metadata"]["name"])}
    return dict(engine["spec"]["selector"]["matchLabels"])


def deployment_name(engine: Mapping[str, Any], path: ServingPath) -> str:
    """Give the name of the Deployment that runs the engine; KServe makes its own."""
    name = str(engine["metadata"]["name"])
    return name if path is ServingPath.RAW else f"{name}-predictor"
