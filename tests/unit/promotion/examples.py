"""A release, its records and its objects, made from nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from servepath.cluster.objects import MANAGED_BY, OWNER
from servepath.promotion.record import Record, State
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import CPU_SMALL

if TYPE_CHECKING:
    from servepath.promotion.record import Stage

NAMESPACE = "serving"
RELEASE = "smol"
DIGEST = "sha256:" + "a" * 64
ENGINE = "registry.test/engine@sha256:" + "e" * 64
SPEC = ServingSpec(NAMESPACE, RELEASE, "smol", f"registry.test/models/smol@{DIGEST}", ENGINE, CPU_SMALL)


def record(number: int = 1, state: State = State.RUNNING, stage: Stage | None = None) -> Record:
    made = Record(
        number=number,
        spec=SPEC,
        path=ServingPath.KSERVE,
        source=f"laptop.test/smol@{DIGEST}",
        who="alice",
        started_at="2026-01-02T03:04:05+00:00",
        state=state,
    )
    return made if stage is None else replace(made, stage=stage)


def service(
    name: str, port: int = 80, *, release: str = RELEASE, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """A Service of a release."""
    own = {MANAGED_BY: OWNER, "app.kubernetes.io/instance": f"{release}-kserve"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": own if labels is None else labels},
        "spec": {"ports": [{"port": port}]},
    }


def deployment(name: str, *, wanted: int = 1, available: int = 1) -> dict[str, Any]:
    """A Deployment that runs the engine, with so many of its replicas available."""
    engine = {"name": "vllm", "image": ENGINE, "args": ["--served-model-name=smol"]}
    pod = {"initContainers": [{"name": "model", "image": SPEC.modelcar_reference}], "containers": [engine]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": service(name)["metadata"],
        "spec": {
            "replicas": wanted,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
        "status": {"replicas": wanted, "updatedReplicas": wanted, "availableReplicas": available},
    }


def inference_service(name: str) -> dict[str, Any]:
    """An InferenceService that is ready, with the engine of `deployment`."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": service(name)["metadata"],
        "spec": {"predictor": {"containers": deployment(name)["spec"]["template"]["spec"]["containers"]}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
