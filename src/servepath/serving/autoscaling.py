"""An `Autoscaling` -> the component of `manifests/` that it takes, and what is changed in it for one path.

Facts of KServe v0.19.0 and KEDA 2.18 behind the refusals: docs/scaling.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.errors import UsageError
from servepath.serving.model import AutoscalerClass, Autoscaling, ServingPath
from servepath.serving.patches import Operation, patch, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AUTOSCALER_KINDS = ("HorizontalPodAutoscaler", "ScaledObject")
"""The kinds of objects that scale a Deployment."""

PAUSED_REPLICAS = "autoscaling.keda.sh/paused-replicas"
"""KEDA's: on a ScaledObject it holds the target at that many replicas (apis/keda/v1alpha1/scaledobject_types.go:58)."""

FORCE_ACTIVATION = "autoscaling.keda.sh/force-activation"
"""KEDA's: while it is "true" the target is not taken to zero, and is brought back from it (the same file, :66)."""

_COMPONENTS = {AutoscalerClass.HPA: "hpa", AutoscalerClass.KEDA: "keda"}
_NEVER_REACHED = 1_000_000
"""Threshold of a trigger that keeps awake or wakes, and never asks for a second replica."""


def check_autoscaling(autoscaling: Autoscaling, components: Sequence[str] = ()) -> None:
    """Refuse what a cluster would accept and then not do.

    Args:
        autoscaling: who scales, and within which numbers.
        components: the overlay's other options; those of autoscaling are not asked for by their name.

    Raises:
        UsageError: with the reason.
    """
    if by_name := sorted({*_COMPONENTS.values(), "scaled"} & set(components)):
        raise UsageError(
            f"component {by_name[0]} has numbers to set", where="--component", expected="--autoscaler hpa or keda"
        )
    lowest, most = autoscaling.min_replicas, autoscaling.max_replicas
    if not 0 <= lowest <= most or most < 1:
        raise UsageError(
            f"{lowest} to {most} replicas", where="--min-replicas and --max-replicas", expected="min <= max"
        )
    if autoscaling.autoscaler is AutoscalerClass.NONE and (lowest, most) != (1, 1):
        raise UsageError(
            f"{lowest} to {most} replicas, and nobody to decide",
            where="--autoscaler none",
            expected="one replica, or --autoscaler hpa or keda (servepath stop takes a path's last replica away)",
        )
    if lowest > 0:
        return
    if autoscaling.autoscaler is AutoscalerClass.HPA:
        raise UsageError(
            "a HorizontalPodAutoscaler does not go to zero: Kubernetes refuses it, KServe makes it 1 in silence",
            where="--min-replicas 0",
            expected="--autoscaler keda",
        )
    if not autoscaling.wake_query:
        raise UsageError(
            "nothing would wake the path: an engine that does not run has no requests waiting in it",
            where="--min-replicas 0",
            expected="--wake-query with PromQL over what the gateway counts (docs/scaling.md)",
        )


def components_of(autoscaling: Autoscaling) -> tuple[str, ...]:
    """Give the components that it takes of `manifests/<path>/components`."""
    return tuple(name for scaler, name in _COMPONENTS.items() if scaler is autoscaling.autoscaler)


def autoscaling_patches(
    autoscaling: Autoscaling, path: ServingPath, *, name: str, namespace: str, startup_timeout_s: int
) -> list[dict[str, Any]]:
    """Give kustomize's patches that set one path's component to these numbers.

    Args:
        autoscaling: who scales, and within which numbers.
        path: which path's component it is.
        name: name of the Deployment (raw) or the InferenceService (KServe).
        namespace: their namespace.
        startup_timeout_s: how long an engine may take to start, in seconds: so long none is taken away again.
    """
    if autoscaling.autoscaler is AutoscalerClass.NONE:
        return []
    if path is ServingPath.KSERVE:
        operations = _replicas(autoscaling, "/spec/predictor/minReplicas", "/spec/predictor/maxReplicas")
        if autoscaling.autoscaler is AutoscalerClass.HPA:
            operations.append(replace("/spec/predictor/scaleTarget", autoscaling.cpu_percent))
        else:
            pods = f"{name}-predictor-.*"
            metrics = [_kserve_metric(autoscaling, *one) for one in _queries(autoscaling, namespace, pods)]
            operations.append(replace("/spec/predictor/autoScaling/metrics", metrics))
        return [patch("InferenceService", operations)]
    target = replace("/spec/scaleTargetRef/name", name)
    if autoscaling.autoscaler is AutoscalerClass.HPA:
        waiting = replace("/spec/metrics/0/pods/target/averageValue", str(autoscaling.waiting_per_replica))
        numbers = _replicas(autoscaling, "/spec/minReplicas", "/spec/maxReplicas")
        return [patch("HorizontalPodAutoscaler", [target, *numbers, waiting])]
    triggers = [_trigger(autoscaling, *one) for one in _queries(autoscaling, namespace, f"{name}-.*")]
    numbers = _replicas(autoscaling, "/spec/minReplicaCount", "/spec/maxReplicaCount")
    numbers.append(replace("/spec/cooldownPeriod", startup_timeout_s))
    return [patch("ScaledObject", [target, *numbers, replace("/spec/triggers", triggers)])]


def _queries(autoscaling: Autoscaling, namespace: str, pods: str) -> Iterator[tuple[str, int]]:
    """Give each query and the value of it that one replica may have.

    KEDA takes the last replica away when no query is above 0. Requests that run and do not wait must count then, or a
    long answer is cut; and one query must outlive the engines, or nothing brings them back.
    """
    labels = f'{{namespace="{namespace}",pod=~"{pods}"}}'
    yield f"sum(vllm:num_requests_waiting{labels})", autoscaling.waiting_per_replica
    if autoscaling.min_replicas == 0:
        yield f"sum(vllm:num_requests_running{labels})", _NEVER_REACHED
        yield autoscaling.wake_query, _NEVER_REACHED


def _trigger(autoscaling: Autoscaling, query: str, per_replica: int) -> dict[str, Any]:
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": autoscaling.prometheus_url,
            "query": query,
            "threshold": str(per_replica),
        },
    }


def _kserve_metric(autoscaling: Autoscaling, query: str, per_replica: int) -> dict[str, Any]:
    """Give one metric in KServe's form; its reconciler makes the trigger above of it."""
    metric = {"backend": "prometheus", "serverAddress": autoscaling.prometheus_url, "query": query}
    target = {"type": "Value", "value": str(per_replica)}
    return {"type": "External", "external": {"metric": metric, "target": target}}


def _replicas(autoscaling: Autoscaling, lowest: str, most: str) -> list[Operation]:
    return [replace(lowest, autoscaling.min_replicas), replace(most, autoscaling.max_replicas)]
