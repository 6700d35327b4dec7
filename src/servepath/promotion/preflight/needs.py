"""What the rendered objects will ask of a cluster: pods with their requests, and volumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lightkube.utils.quantity import parse_quantity

from servepath.serving.model import ServingPath
from servepath.serving.render import INSTANCE
from servepath.serving.stopped import is_stopped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GPU = "nvidia.com/gpu"
_SIDECAR = {"cpu": Decimal("0.01"), "memory": Decimal(15 * 2**20)}
"""Of KServe's modelcar container (v0.19.0, the inferenceservice-config's storageInitializer: 10m and 15Mi)."""


@dataclass(frozen=True, slots=True)
class PodNeed:
    """One pod that is to be scheduled.

    Attributes:
        name: of the object that makes it.
        requests: by resource, in cores, bytes or pieces.
        limits: likewise.
        node_selector: the labels that its node must have.
        tolerations: as in its pod spec.
    """

    name: str
    requests: Mapping[str, Decimal]
    limits: Mapping[str, Decimal]
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()

    @property
    def gpus(self) -> int:
        """How many GPUs it asks for."""
        return int(self.requests.get(GPU, 0))


@dataclass(frozen=True, slots=True)
class Needs:
    """What is to be applied, and what it needs.

    Attributes:
        objects: the objects, as rendered.
        pods: the pods that they make.
        volume_bytes: of the volumes that they claim.
    """

    objects: tuple[Mapping[str, Any], ...]
    pods: tuple[PodNeed, ...]
    volume_bytes: tuple[int, ...]

    @property
    def instances(self) -> frozenset[tuple[str, str]]:
        """What is replaced, as `instance_of` gives it: with Recreate its pods go first."""
        return frozenset(instance_of(obj) for obj in self.objects if INSTANCE in labels_of(obj))


def needs_of(objects: Sequence[Mapping[str, Any]]) -> Needs:
    """Read what Deployments, InferenceServices and claims ask for; of a stopped engine there is no pod."""
    claims = [obj["spec"] for obj in objects if obj["kind"] == "PersistentVolumeClaim"]
    specs = [(obj, *found) for obj in objects if (found := _pod_spec(obj))]
    claims += [
        volume["ephemeral"]["volumeClaimTemplate"]["spec"]
        for _, pod, count in specs
        for volume in (pod.get("volumes") or ()) * count
        if "ephemeral" in volume
    ]
    return Needs(
        tuple(objects),
        tuple(_pod_of(obj, pod) for obj, pod, count in specs for _ in range(count)),
        tuple(int(quantity(claim["resources"]["requests"]["storage"])) for claim in claims),
    )


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Give an object's labels."""
    return obj.get("metadata", {}).get("labels") or {}


def instance_of(obj: Mapping[str, Any]) -> tuple[str, str]:
    """Give the namespace and `app.kubernetes.io/instance` of an object: a release may have a namesake elsewhere."""
    return str(obj.get("metadata", {}).get("namespace") or ""), labels_of(obj).get(INSTANCE, "")


def is_put_away(obj: Mapping[str, Any]) -> bool:
    """Tell whether an InferenceService is stopped: KServe has deleted its Deployment and its Service."""
    return obj["kind"] == "InferenceService" and is_stopped(obj, ServingPath.KSERVE)


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Tell whether a toleration of a pod is one of a node's taint."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    asked = (toleration.get("key"), toleration.get("value") or "")
    return asked == (taint["key"], taint.get("value") or "")


def quantity(text: Any) -> Decimal:
    """Read a Kubernetes quantity, nothing as 0."""
    return parse_quantity(str(text)) or Decimal(0) if text is not None else Decimal(0)


def requests_of(pod: Mapping[str, Any], kind: str = "requests") -> dict[str, Decimal]:
    """Give what a pod asks for: its containers together, or one init container if that asks for more."""
    together: dict[str, Decimal] = {}
    for container in pod.get("containers") or ():
        for name, value in ((container.get("resources") or {}).get(kind) or {}).items():
            together[name] = together.get(name, Decimal(0)) + quantity(value)
    for container in pod.get("initContainers") or ():
        for name, value in ((container.get("resources") or {}).get(kind) or {}).items():
            together[name] = max(together.get(name, Decimal(0)), quantity(value))
    return together


def _pod_spec(obj: Mapping[str, Any]) -> tuple[Mapping[str, Any], int] | None:
    """Give the pod spec of an object and how many pods it makes, None where it makes none."""
    if obj["kind"] == "Deployment":
        return obj["spec"]["template"]["spec"], obj["spec"].get("replicas", 1)
    if obj["kind"] == "InferenceService" and not is_put_away(obj):
        return obj["spec"]["predictor"], obj["spec"]["predictor"].get("minReplicas", 1)
    return None


def _pod_of(obj: Mapping[str, Any], pod: Mapping[str, Any]) -> PodNeed:
    requests, limits = requests_of(pod), requests_of(pod, "limits")
    if obj["kind"] == "InferenceService":
        requests, limits = _with_sidecar(requests), _with_sidecar(limits)
    tolerations = tuple(pod.get("tolerations") or ())
    return PodNeed(obj["metadata"]["name"], requests, limits, pod.get("nodeSelector") or {}, tolerations)


def _with_sidecar(requests: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {**requests, **{name: requests.get(name, Decimal(0)) + value for name, value in _SIDECAR.items()}}
