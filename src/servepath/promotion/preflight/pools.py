"""Which node pools of GKE a pod may run in, and the command that gives it a node: of a bigger pool, or of a new one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from servepath.promotion.preflight.needs import tolerates

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from servepath.gke.model import GkeFacts, NodePool
    from servepath.promotion.preflight.needs import PodNeed

POOL = "cloud.google.com/gke-nodepool"
SPOT = "cloud.google.com/gke-spot"
PREEMPTIBLE = "cloud.google.com/gke-preemptible"
"""Of the older kind, which has no label of Spot (https://cloud.google.com/kubernetes-engine/docs/how-to/preemptible-vms)."""
ACCELERATOR = "cloud.google.com/gke-accelerator"
STREAMING = "cloud.google.com/gke-image-streaming"
PRELOADED = "cloud.google.com.node-restriction.kubernetes.io/gke-secondary-boot-disk-"
"""With the name of a disk image after it; the label's value is `CONTAINER_IMAGE_CACHE.PROJECT`."""
_MACHINE = "node.kubernetes.io/instance-type"
_AUTOMATIC = ("kubernetes.io", "k8s.io", "cloud.google.com", "gke.io")
"""Whose labels come by themselves: what they will be on a node that is not there yet is not known but for the above."""
_GPU_MACHINES: Mapping[str, Mapping[int, str]] = {
    "nvidia-l4": {1: "g2-standard-8", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"},
    "nvidia-tesla-t4": {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32"},
    "nvidia-tesla-a100": {number: f"a2-highgpu-{number}g" for number in (1, 2, 4, 8)},
    "nvidia-a100-80gb": {number: f"a2-ultragpu-{number}g" for number in (1, 2, 4, 8)},
}
"""By accelerator and how many a machine has (https://cloud.google.com/compute/docs/gpus). Left out are those that may
be bought in some ways alone, such as `a3-highgpu-1g`: of these the choice is left to the person."""
_DEFAULT_GPU = "nvidia-l4"
_GIB = 2**30


def suits(pool: NodePool, pod: PodNeed) -> bool:
    """Tell whether a pod may be scheduled to the pool's nodes, as far as is known before there is one."""
    labels = {
        **pool.labels,
        POOL: pool.name,
        ACCELERATOR: pool.accelerator_type,
        SPOT: "true" if pool.is_spot else "",
        PREEMPTIBLE: "true" if pool.is_preemptible else "",
        STREAMING: "true" if pool.streams_images else "",
        _MACHINE: pool.machine_type,
    }
    is_selected = all(
        labels.get(key, value if _is_automatic(key) else "") == value for key, value in pod.node_selector.items()
    )
    is_preloaded = pool.preloads_images or not _preloaded(pod)
    is_tolerated = all(any(tolerates(one, taint) for one in pod.tolerations) for taint in map(_taint, pool.taints))
    return pool.accelerators >= pod.gpus and is_selected and is_preloaded and is_tolerated


@dataclass(slots=True)
class Pools:
    """A cluster's node pools while their nodes are promised to pods.

    Attributes:
        facts: what Google says of the cluster.
        nodes: how many nodes each pool has, with those that are promised or wanted.
        growing: each pod to which a node was promised that a pool will add.
    """

    facts: GkeFacts
    nodes: Counter[str]
    growing: list[tuple[PodNeed, NodePool]] = field(default_factory=list)

    def place(self, pod: PodNeed) -> str:
        """Promise a new node to a pod and say whence; empty where none may come, which `fix` then asks for."""
        for pool in self.facts.pools:
            if pool.is_autoscaled and self.nodes[pool.name] < pool.max_nodes and suits(pool, pod):
                self.nodes[pool.name] += 1
                self.growing.append((pod, pool))
                return f"pool {pool.name} may grow to {pool.max_nodes} nodes"
        said = self._made_by_google(pod)
        if not said:
            full = self._suited(pod)
            self.nodes[full.name if full is not None else self._new_name(pod)] += 1
        return said

    def fix(self, pod: PodNeed) -> str:
        """Give the command after which there is room for all pods that `place` could promise nothing.

        Limits are those of the whole pool: `--max-nodes` would be one per zone
        (https://cloud.google.com/kubernetes-engine/docs/how-to/cluster-autoscaler).
        """
        target = self.facts.target
        if self.facts.is_autopilot:
            # Autopilot makes only nodes of a GPU that the pod names, as components/gke-accelerator does.
            return f"gcloud compute accelerator-types list --project {target.project} --filter=zone:{target.region}"
        update = f"gcloud container node-pools update {{}} --cluster {target.name} {target.gcloud} "
        if (full := self._suited(pod)) is not None:
            limits = f"--total-min-nodes {full.min_nodes} --total-max-nodes {self.nodes[full.name]}"
            return update.format(full.name) + f"--enable-autoscaling {limits}"
        slow = (pool for pool in self.facts.pools if suits(replace(pool, streams_images=True), pod))
        if (first := next(slow, None)) is not None:
            return update.format(first.name) + "--enable-image-streaming"
        return self.make(pod)

    def make(self, pod: PodNeed, *more: str) -> str:
        """Give the command that makes a pool for a pod, from which it may grow to no nodes again.

        A secondary boot disk, Spot and the type of GPU are a pool's from its beginning: none can be changed later.

        Args:
            pod: what is to run there.
            more: further options.
        """
        target, name = self.facts.target, self._new_name(pod)
        kind, number, machine = _machine_for(pod)
        if not machine:
            where = f"zone:{target.region} AND accelerators.guestAcceleratorType={kind}"
            return f"gcloud compute machine-types list --project {target.project} --filter='{where}'"
        own = ",".join(f"{key}={value}" for key, value in pod.node_selector.items() if not _is_automatic(key))
        options = (
            *([f"--accelerator type={kind},count={number},gpu-driver-version=latest"] if kind else ()),
            f"--machine-type {machine} --enable-autoscaling --num-nodes 0 --total-min-nodes 0",
            f"--total-max-nodes {max(self.nodes[name], 1)} --disk-size 200 --enable-image-streaming",
            *(["--spot"] if pod.node_selector.get(SPOT) == "true" else ()),
            *([f"--node-labels={own}"] if own else ()),
            *(f"--secondary-boot-disk={disk}" for disk in _preloaded(pod)),
            *more,
        )
        return f"gcloud container node-pools create {name} --cluster {target.name} {target.gcloud} {' '.join(options)}"

    def _suited(self, pod: PodNeed) -> NodePool | None:
        return next((pool for pool in self.facts.pools if suits(pool, pod)), None)

    def _new_name(self, pod: PodNeed) -> str:
        """Give the name that the pod asks for, or one that no pool has."""
        stem, taken = "gpu" if pod.gpus else "cpu", {pool.name for pool in self.facts.pools}
        free = stem if stem not in taken else next(f"{stem}-{n}" for n in count(2) if f"{stem}-{n}" not in taken)
        return pod.node_selector.get(POOL, free)

    def _made_by_google(self, pod: PodNeed) -> str:
        """Say that Google makes the node, by Autopilot or by node auto-provisioning; both must be told which GPU."""
        accelerator, provisioned = pod.node_selector.get(ACCELERATOR, ""), self.facts.provisioned
        if self.facts.is_autopilot and (accelerator or not pod.gpus):
            return "Autopilot makes the node"
        if accelerator and provisioned.get(accelerator, 0) >= pod.gpus:
            return f"node auto-provisioning makes up to {provisioned[accelerator]} {accelerator}"
        return ""


def _machine_for(pod: PodNeed) -> tuple[str, int, str]:
    """Give the accelerator of a pod, how many its machine has, and the machine's type, empty where none is known."""
    if pod.gpus:
        kind = pod.node_selector.get(ACCELERATOR, _DEFAULT_GPU)
        machines = _GPU_MACHINES.get(kind, {})
        number = min((one for one in machines if one >= pod.gpus), default=0)
        return kind, number, pod.node_selector.get(_MACHINE) or machines.get(number, "")
    cpus, gib = float(pod.requests.get("cpu", 0)), float(pod.requests.get("memory", 0)) / _GIB
    # 4 GiB to a CPU, of which GKE keeps up to a quarter of the memory for itself on the small ones.
    cores = next((cores for cores in (2, 4, 8, 16) if cores > cpus and 3 * cores > gib), 32)
    return "", 0, pod.node_selector.get(_MACHINE) or f"e2-standard-{cores}"


def _is_automatic(key: str) -> bool:
    return key.partition("/")[0].endswith(_AUTOMATIC) and "/" in key


def _preloaded(pod: PodNeed) -> tuple[str, ...]:
    """Give the secondary boot disks that a pod wants of its node, each as gcloud's `--secondary-boot-disk` takes it."""
    disks = []
    for key, value in pod.node_selector.items():
        if key.startswith(PRELOADED):
            mode, _, project = value.partition(".")
            disks.append(f"disk-image=projects/{project}/global/images/{key.removeprefix(PRELOADED)},mode={mode}")
    return tuple(disks)


def _taint(text: str) -> dict[str, Any]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}
