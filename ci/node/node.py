"""The whole node, started inside a holder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node import containerd, control_plane, images, registry, storage, worker

if TYPE_CHECKING:
    from ci.node.control_plane import ControlPlane
    from ci.node.kubectl import Kubectl
    from ci.node.layout import Layout
    from ci.node.process import Process
    from ci.node.registry import Registry
    from ci.node.worker import Worker


@dataclass(frozen=True, slots=True)
class Node:
    """A running single-node cluster with a registry. Its addresses work inside the holder.

    Attributes:
        layout: its folders; `layout.logs` has one file per program.
        plane: the Kubernetes API.
        registry: the registry.
        worker: what runs pods.
        busybox: reference by digest of the base image in the registry.
    """

    layout: Layout
    plane: ControlPlane
    registry: Registry
    worker: Worker
    busybox: str

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.plane.kubeconfig

    @property
    def kubectl(self) -> Kubectl:
        """The kubectl of the same version, as administrator."""
        return self.plane.kubectl

    @property
    def address(self) -> str:
        """The node's address."""
        return self.worker.address


async def start(layout: Layout, programs: Path, names: tuple[str, ...] = ()) -> Node:
    """Start registry, control plane and worker, side by side where nothing depends on another.

    Args:
        layout: the node's folders.
        programs: the folder of the Kubernetes programs.
        names: names and addresses besides its own under which the API is reached.

    Raises:
        ClusterError: a program died or was not ready in time.
    """
    runtimes: list[Process] = []
    bases: list[tuple[Registry, str]] = []

    async def runtime() -> None:
        runtimes.append(await containerd.start(layout, worker.write_cni(layout.run / "cni")))

    async def images_in_registry() -> None:
        running = await registry.start(layout.registry, layout.run, layout.logs)
        bases.append((running, await images.push(images.busybox(), running.address, "servepath/busybox")))

    async with anyio.create_task_group() as group:
        group.start_soon(runtime)
        group.start_soon(images_in_registry)
        plane = await control_plane.start(layout, programs, names)
        group.start_soon(storage.create, plane.kubectl, layout.run / "volumes")
    joined = await worker.start(layout, plane, runtimes[0])
    running_registry, busybox = bases[0]
    return Node(layout, plane, running_registry, joined, busybox)


def environment(layout: Layout, kubernetes_programs: Path) -> dict[str, str]:
    """The variables of a command inside the holder, on top of the caller's own.

    Args:
        layout: the node's folders.
        kubernetes_programs: the folder that goes first on PATH: kubectl is in it.
    """
    root = Path(__file__).resolve().parents[2]
    return {
        "KUBECONFIG": str(layout.kubeconfig),
        "PATH": f"{kubernetes_programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH", "")))),
        "SERVEPATH_CACHE": str(layout.cache),
        "SERVEPATH_NODE": layout.name,
    }
