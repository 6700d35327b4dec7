"""Whether the pods find a node: one that is there, or one that an autoscaler may add; and room on its disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from servepath.promotion.preflight.needs import GPU, Needs, PodNeed, instance_of, labels_of, quantity, requests_of
from servepath.promotion.preflight.results import judged, missing, there, untold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from servepath.evidence import CheckResult
    from servepath.gke.model import GkeFacts, NodePool

POOL = "cloud.google.com/gke-nodepool"
SPOT = "cloud.google.com/gke-spot"
ACCELERATOR = "cloud.google.com/gke-accelerator"
STREAMING = "cloud.google.com/gke-image-streaming"
PRELOADED = "cloud.google.com.node-restriction.kubernetes.io/gke-secondary-boot-disk-"
"""With the name of a disk image after it; the label's value is `CONTAINER_IMAGE_CACHE.PROJECT`."""
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
            if taint.get("effect") != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in pod.tolerations):
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
    rooms, replaced = {}, needs.instances
    for node in nodes:
        if not _is_usable(node):
            continue
        free = {name: quantity(text) for name, text in (node["status"].get("allocatable") or {}).items()}
        name = node["metadata"]["name"]
        rooms[name] = Room(name, labels_of(node), node["spec"].get("taints") or (), free)
    for pod in pods:
        room = rooms.get((pod.get("spec") or {}).get("nodeName", ""))
        is_over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if room is None or is_over or instance_of(pod) in replaced:
            continue
        for name, used in requests_of(pod["spec"]).items():
            room.free[name] = room.free.get(name, Decimal(0)) - used
    return list(rooms.values())


def check_nodes(
    needs: Needs, rooms: Sequence[Room], kubectl: str, facts: GkeFacts | None = None
) -> tuple[tuple[CheckResult, ...], tuple[tuple[PodNeed, NodePool], ...]]:
    """Find a node for each pod, the greediest first.

    Returns:
        One result for each pod, and the pods for which a pool of GKE must grow.
    """
    results, growing = [], []
    grown: dict[str, int] = {}
    for pod in sorted(needs.pods, key=lambda pod: sum(pod.requests.values()), reverse=True):
        name, expected = f"node_for_{pod.name.replace('-', '_')}", _wanted(pod)
        reasons = {room.name: room.refuses(pod) for room in rooms}
        fitting = next((room for room in rooms if not reasons[room.name]), None)
        if fitting is not None:
            fitting.take(pod)
            results.append(there(name, expected, f"node {fitting.name}"))
            continue
        seen = "; ".join(f"{node} {reason}" for node, reason in reasons.items()) or "no node is ready"
        pool = _growing(pod, rooms, facts, grown) if facts else None
        if pool is not None:
            grown[pool.name] = grown.get(pool.name, 0) + 1
            growing.append((pod, pool))
            results.append(there(name, expected, f"pool {pool.name} may grow to {pool.max_nodes} nodes"))
        elif facts is not None and (said := _made_by_google(pod, facts)):
            results.append(there(name, expected, said))
        else:
            results.append(missing(name, expected, seen, _fix(pod, kubectl, facts)))
    return tuple(results), tuple(growing)


def check_disk(  # noqa: PLR0913
    needs: Needs,
    nodes: Sequence[Mapping[str, Any]],
    rooms: Sequence[Room],
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
    fitting = {room.name for room in rooms for pod in needs.pods if not _misfits(room, pod)}
    sizes = {
        node["metadata"]["name"]: int(quantity((node["status"].get("allocatable") or {}).get(_DISK)))
        for node in nodes
        if node["metadata"]["name"] in fitting
    }
    if not sizes and facts is not None:
        sizes = {
            f"pool {pool.name}": _allocatable_disk(pool.disk_size_bytes)
            for pool in facts.pools
            if pool.disk_size_bytes and any(_suits(pool, pod) for pod in needs.pods)
        }
    if not sizes:
        return untold(name, expected, "there is no node for them yet", f"{kubectl} get nodes")
    biggest = max(sizes, key=lambda one: sizes[one])
    return judged(
        name,
        expected,
        f"{sizes[biggest] / _GIB:.1f} GiB on {biggest}",
        _bigger_disk(facts, least, kubectl),
        is_there=sizes[biggest] >= least,
    )


def _misfits(room: Room, pod: PodNeed) -> bool:
    """Tell whether a node could never run a pod, however empty: by its labels and taints, or for want of GPUs."""
    return bool(room.refuses(PodNeed(pod.name, {}, {}, pod.node_selector, pod.tolerations))) or (
        pod.gpus > 0 and GPU not in room.free
    )


def _is_usable(node: Mapping[str, Any]) -> bool:
    ready = [one["status"] for one in node["status"].get("conditions") or () if one["type"] == "Ready"]
    return ready == ["True"] and not node["spec"].get("unschedulable")


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    asked = (toleration.get("key"), toleration.get("value") or "")
    return asked == (taint["key"], taint.get("value") or "")


def _growing(pod: PodNeed, rooms: Sequence[Room], facts: GkeFacts, grown: Mapping[str, int]) -> NodePool | None:
    """Give a pool of GKE that may get one more node that suits the pod."""
    for pool in facts.pools:
        present = sum(room.labels.get(POOL) == pool.name for room in rooms) + grown.get(pool.name, 0)
        if pool.is_autoscaled and present < pool.max_nodes and _suits(pool, pod):
            return pool
    return None


def _suits(pool: NodePool, pod: PodNeed) -> bool:
    """Tell whether a node of the pool would do; labels that its owner gives its nodes are not known."""
    labels = {
        POOL: pool.name,
        ACCELERATOR: pool.accelerator_type,
        SPOT: "true" if pool.is_spot else "",
        STREAMING: "true" if pool.streams_images else "",
    }
    is_selected = all(labels.get(key, value) == value for key, value in pod.node_selector.items())
    is_preloaded = pool.preloads_images or not _preloaded(pod)
    taints = [_taint(text) for text in pool.taints]
    is_tolerated = all(any(_tolerates(one, taint) for one in pod.tolerations) for taint in taints)
    return pool.accelerators >= pod.gpus and is_selected and is_preloaded and is_tolerated


def _preloaded(pod: PodNeed) -> tuple[str, ...]:
    """Give the secondary boot disks that a pod wants of its node, each as gcloud's `--secondary-boot-disk` takes it."""
    disks = []
    for key, value in pod.node_selector.items():
        if key.startswith(PRELOADED):
            mode, _, project = value.partition(".")
            disks.append(f"disk-image=projects/{project}/global/images/{key.removeprefix(PRELOADED)},mode={mode}")
    return tuple(disks)


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}


def _made_by_google(pod: PodNeed, facts: GkeFacts) -> str:
    """Say that Google makes the node, by Autopilot or by node auto-provisioning; both need to be told which GPU."""
    accelerator = pod.node_selector.get(ACCELERATOR, "")
    if facts.is_autopilot and (accelerator or not pod.gpus):
        return "Autopilot makes the node"
    if accelerator and facts.provisioned.get(accelerator, 0) >= pod.gpus:
        return f"node auto-provisioning makes up to {facts.provisioned[accelerator]} {accelerator}"
    return ""


def _fix(pod: PodNeed, kubectl: str, facts: GkeFacts | None) -> str:
    if facts is None:
        columns = r"NAME:.metadata.name,GPUS:.status.allocatable.nvidia\.com/gpu,TAINTS:.spec.taints"
        return f"{kubectl} get nodes -o custom-columns={columns}" if pod.gpus else f"{kubectl} describe nodes"
    target = facts.target
    if facts.is_autopilot:
        # Autopilot makes only nodes of a GPU that the pod names, as components/gke-accelerator does.
        return f"gcloud compute accelerator-types list --project {target.project} --filter=zone:{target.region}"
    if not pod.gpus:
        return f"gcloud container clusters update {target.name} {target.gcloud} --enable-autoscaling --max-nodes 3"
    return _fix_pools(pod, facts)


def _fix_pools(pod: PodNeed, facts: GkeFacts) -> str:
    """Give the command after which a pool has a node with the GPUs: a bigger pool, a changed one, or a new one."""
    target = facts.target
    fitting = [pool for pool in facts.pools if pool.accelerators >= pod.gpus]
    suited = next((pool for pool in fitting if _suits(pool, pod)), None)
    if suited is None:
        slow = next((pool for pool in fitting if _suits(replace(pool, streams_images=True), pod)), None)
        if slow is not None:
            return (
                f"gcloud container node-pools update {slow.name} --cluster {target.name} {target.gcloud} "
                "--enable-image-streaming"
            )
    is_preloaded = not _preloaded(pod) or any(pool.preloads_images for pool in fitting)
    if fitting and is_preloaded:
        full = suited or fitting[0]
        return (
            f"gcloud container node-pools update {full.name} --cluster {target.name} {target.gcloud} "
            f"--enable-autoscaling --min-nodes 0 --max-nodes {full.max_nodes + 1}"
        )
    # A pool gets its secondary boot disks when it is made, and never later.
    name = f"{fitting[0].name}-preloaded" if fitting else "gpu"
    options = [" --spot"] if pod.node_selector.get(SPOT) == "true" else []
    options += [f" --secondary-boot-disk={disk}" for disk in _preloaded(pod)]
    return (
        f"gcloud container node-pools create {name} --cluster {target.name} {target.gcloud} "
        f"--accelerator type=nvidia-l4,count={pod.gpus},gpu-driver-version=latest --machine-type g2-standard-8 "
        "--enable-autoscaling --num-nodes 0 --min-nodes 0 --max-nodes 1 --disk-size 200 --enable-image-streaming"
        f"{''.join(options)}"
    )


def _bigger_disk(facts: GkeFacts | None, least: int, kubectl: str) -> str:
    if facts is None:
        return f"{kubectl} get nodes -o custom-columns=NAME:.metadata.name,DISK:.status.allocatable.ephemeral-storage"
    target = facts.target
    size_gb = next(size for size in range(50, 64_000, 50) if _allocatable_disk(size * 10**9) >= least)
    pool = next((pool.name for pool in facts.pools if pool.accelerators), "gpu")
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
