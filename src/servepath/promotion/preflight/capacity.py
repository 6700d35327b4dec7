"""Whether the pods find a node: one that is there, or one that an autoscaler may add; and room on its disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from servepath.promotion.preflight.needs import (
    Needs,
    PodNeed,
    instance_of,
    labels_of,
    quantity,
    requests_of,
    tolerates,
)
from servepath.promotion.preflight.pools import POOL, Pools, suits
from servepath.promotion.preflight.results import judged, untold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from servepath.evidence import CheckResult
    from servepath.gke.model import GkeFacts, NodePool

_DISK = "ephemeral-storage"
_GIB = 2**30


@dataclass(slots=True)
class Room:
    """What is left on a node while pods are placed on it."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, Any]]
    free: dict[str, Decimal]

    def refuses(self, pod: PodNeed) -> str:
        """Say why a pod does not fit, empty if it does."""
        for key, value in pod.node_selector.items():
            if self.labels.get(key) != value:
                return f"has no label {key}={value}"
        for taint in self.taints:
            if taint.get("effect") != "PreferNoSchedule" and not any(tolerates(one, taint) for one in pod.tolerations):
                return f"has the taint {taint['key']}={taint.get('value', '')}:{taint['effect']}"
        for name, wanted in pod.requests.items():
            if wanted > self.free.get(name, Decimal(0)):
                return f"has {_amount(name, self.free.get(name, Decimal(0)))} {name} free of {_amount(name, wanted)}"
        return ""

    def take(self, pod: PodNeed) -> None:
        """Put a pod on it."""
        for name, wanted in pod.requests.items():
            self.free[name] = self.free.get(name, Decimal(0)) - wanted


def rooms_of(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], needs: Needs) -> list[Room]:
    """Give what is left on each ready node, without the pods that will be replaced."""
    replaced = needs.instances
    rooms = {node["metadata"]["name"]: _room(node) for node in nodes if _is_usable(node)}
    for pod in pods:
        room = rooms.get((pod.get("spec") or {}).get("nodeName", ""))
        is_over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if room is None or is_over or instance_of(pod) in replaced:
            continue
        for name, used in requests_of(pod["spec"]).items():
            room.free[name] = room.free.get(name, Decimal(0)) - used
    return list(rooms.values())


def may_run(node: Mapping[str, Any], pod: PodNeed) -> bool:
    """Tell whether a pod may be scheduled to a node once that is empty: by its labels, its taints and its size."""
    return _is_usable(node) and not _room(node).refuses(pod)


def check_nodes(
    needs: Needs, rooms: Sequence[Room], kubectl: str, facts: GkeFacts | None = None
) -> tuple[tuple[CheckResult, ...], tuple[tuple[PodNeed, NodePool], ...]]:
    """Find a node for each pod, the greediest first.

    Returns:
        One result for each pod, and the pods for which a pool of GKE must grow.
    """
    pools = Pools(facts, Counter(room.labels.get(POOL, "") for room in rooms)) if facts is not None else None
    placed = []
    for pod in sorted(needs.pods, key=lambda pod: sum(pod.requests.values()), reverse=True):
        reasons = {room.name: room.refuses(pod) for room in rooms}
        fitting = next((room for room in rooms if not reasons[room.name]), None)
        if fitting is not None:
            fitting.take(pod)
            placed.append((pod, f"node {fitting.name}", reasons))
        else:
            placed.append((pod, pools.place(pod) if pools is not None else "", reasons))
    # Only now is it known how many nodes are wanted in all: each command is for all of them.
    results = tuple(_placed(pod, place, reasons, _fix(pod, kubectl, pools)) for pod, place, reasons in placed)
    return results, tuple(pools.growing) if pools is not None else ()


def _placed(pod: PodNeed, place: str, reasons: Mapping[str, str], fix: str) -> CheckResult:
    lacking = "; ".join(f"{node} {reason}" for node, reason in reasons.items()) or "no node is ready"
    name = f"node_for_{pod.name.replace('-', '_')}"
    return judged(name, _wanted(pod), place or lacking, fix, is_there=bool(place))


def _fix(pod: PodNeed, kubectl: str, pools: Pools | None) -> str:
    if pools is not None:
        return pools.fix(pod)
    columns = r"NAME:.metadata.name,GPUS:.status.allocatable.nvidia\.com/gpu,TAINTS:.spec.taints"
    return f"{kubectl} get nodes -o custom-columns={columns}" if pod.gpus else f"{kubectl} describe nodes"


def check_disk(
    needs: Needs,
    nodes: Sequence[Mapping[str, Any]],
    image_bytes: int,
    *,
    kubectl: str,
    facts: GkeFacts | None = None,
) -> CheckResult:
    """Compare the images with the disk of the nodes that may run them.

    A node keeps a layer as it was pulled and again as it was unpacked. How much a compressed layer grows is not known
    before, so that twice what the registry holds is the least that is needed.
    """
    name = "disk_for_the_images"
    if not image_bytes:
        return untold(name, "room for the images", "their size is not known yet")
    least = 2 * image_bytes
    expected = f"at least {least / _GIB:.1f} GiB of {_DISK}: twice the images' {image_bytes / _GIB:.1f} GiB"
    sizes = {
        node["metadata"]["name"]: int(quantity((node["status"].get("allocatable") or {}).get(_DISK)))
        for node in nodes
        if any(may_run(node, pod) for pod in needs.pods)
    }
    if not sizes and facts is not None:
        sizes = {
            f"pool {pool.name}": _allocatable_disk(pool.disk_size_bytes)
            for pool in facts.pools
            if pool.disk_size_bytes and any(suits(pool, pod) for pod in needs.pods)
        }
    if not sizes:
        return untold(name, expected, "there is no node for them yet", f"{kubectl} get nodes")
    biggest = max(sizes, key=lambda one: sizes[one])
    return judged(
        name,
        expected,
        f"{sizes[biggest] / _GIB:.1f} GiB on {biggest}",
        _bigger_disk(needs, facts, least, kubectl),
        is_there=sizes[biggest] >= least,
    )


def _room(node: Mapping[str, Any]) -> Room:
    """Give a node with nothing on it."""
    free = {name: quantity(text) for name, text in (node["status"].get("allocatable") or {}).items()}
    return Room(node["metadata"]["name"], labels_of(node), node["spec"].get("taints") or (), free)


def _is_usable(node: Mapping[str, Any]) -> bool:
    ready = [one["status"] for one in node["status"].get("conditions") or () if one["type"] == "Ready"]
    return ready == ["True"] and not node["spec"].get("unschedulable")


def _bigger_disk(needs: Needs, facts: GkeFacts | None, least: int, kubectl: str) -> str:
    if facts is None:
        return f"{kubectl} get nodes -o custom-columns=NAME:.metadata.name,DISK:.status.allocatable.ephemeral-storage"
    target = facts.target
    size_gb = next(size for size in range(50, 64_000, 50) if _allocatable_disk(size * 10**9) >= least)
    pool = next((pool.name for pool in facts.pools if any(suits(pool, pod) for pod in needs.pods)), "POOL")
    return f"gcloud container node-pools update {pool} --cluster {target.name} {target.gcloud} --disk-size {size_gb}"


def _allocatable_disk(boot_disk_bytes: int) -> int:
    """Give what is left of a boot disk on GKE.

    10 % is the eviction threshold, and the smallest of half of it, 6 GiB + 35 % and 100 GiB is reserved
    (https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes, local ephemeral storage).
    """
    reserved = min(0.5 * boot_disk_bytes, 6 * _GIB + 0.35 * boot_disk_bytes, 100 * _GIB)
    return int(0.9 * boot_disk_bytes - reserved)


def _wanted(pod: PodNeed) -> str:
    asked = ", ".join(f"{_amount(name, value)} {name}" for name, value in sorted(pod.requests.items()))
    selected = ", ".join(f"{key}={value}" for key, value in pod.node_selector.items())
    return f"a node with {asked}" + (f" and the labels {selected}" if selected else "")


def _amount(name: str, value: Decimal) -> str:
    return f"{value / _GIB:.1f} GiB" if name in ("memory", _DISK) else f"{value.normalize():f}"
