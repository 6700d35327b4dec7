"""Volumes for the node's PersistentVolumeClaims: folders made in advance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ci.node.worker import NODE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.kubectl import Kubectl

CLASS_NAME = "local"
COUNT = 32


async def create(kubectl: Kubectl, folder: Path) -> None:
    """Create a default StorageClass and `COUNT` volumes that its claims bind to, one each.

    Args:
        kubectl: the cluster.
        folder: where the volumes' content goes; it ends with the run.

    Raises:
        ClusterError: the API server refused them.
    """
    paths = [folder / f"volume-{index}" for index in range(COUNT)]
    for path in paths:
        path.mkdir(parents=True)
    await kubectl.apply([_storage_class(), *(_volume(path) for path in paths)])


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS_NAME, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _volume(path: Path) -> dict[str, Any]:
    on_this_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": path.name},
        "spec": {
            "capacity": {"storage": "100Gi"},  # a name for "enough": nothing enforces it on a folder
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS_NAME,
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_this_node]}]}},
        },
    }
