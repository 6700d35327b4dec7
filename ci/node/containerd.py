"""containerd inside the holder: its image store outlives the run, its containers do not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node import images, process
from ci.node.registry import ADDRESS as REGISTRY
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ci.node.layout import Layout
    from ci.node.process import Process

SOCKET = Path("/run/containerd/containerd.sock")
_CRI = "io.containerd.grpc.v1.cri"

_CONFIG = """
version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = [{disabled}]

[grpc]
address = "{socket}"

[plugins."{cri}"]
sandbox_image = "{pause}"
disable_apparmor = true
# A negative oom_score_adj needs CAP_SYS_RESOURCE, which many machines withhold.
restrict_oom_score_adj = true

[plugins."{cri}".containerd]
snapshotter = "overlayfs"
# Layers stay in the registry: keeping them compressed here as well doubles the store.
discard_unpacked_layers = true

[plugins."{cri}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."{cri}".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"

[plugins."{cri}".registry]
config_path = "{registries}"
"""

_UNUSED = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
)


async def start(layout: Layout, cni: Path) -> Process:
    """Start containerd without the containers of earlier runs, and with the pause image.

    Args:
        layout: the node's folders.
        cni: the folder of the CNI configuration.

    Raises:
        ClusterError: containerd died, was not ready in time, or refused the pause image.
    """
    layout.containerd.mkdir(parents=True, exist_ok=True)
    registries = layout.run / "registries"
    (registries / REGISTRY).mkdir(parents=True)
    (registries / REGISTRY / "hosts.toml").write_text(f'server = "http://{REGISTRY}"\n')
    await _forget_containers(layout, cni)
    running = await _run(layout, cni, _UNUSED)
    await _import_pause()
    return running


async def ctr(arguments: Sequence[str], content: bytes | None = None) -> str:
    """Run containerd's own client in Kubernetes' namespace, and return what it prints.

    Raises:
        ClusterError: it failed.
    """
    command = ["ctr", "--address", str(SOCKET), "--namespace", "k8s.io", *arguments]
    done = await anyio.run_process(command, input=content, check=False, stderr=subprocess.PIPE)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise ClusterError(f"ctr {' '.join(arguments)} failed: {message}", where=str(SOCKET))
    return done.stdout.decode()


async def _run(layout: Layout, cni: Path, disabled: Sequence[str]) -> Process:
    config = layout.run / "containerd.toml"
    config.write_text(
        _CONFIG.format(
            root=layout.containerd,
            disabled=", ".join(f'"{plugin}"' for plugin in disabled),
            socket=SOCKET,
            cri=_CRI,
            pause=images.PAUSE_NAME,
            cni=cni,
            registries=layout.run / "registries",
        )
    )
    command = ["containerd", "--config", str(config)]
    return await process.start("containerd", command, logs=layout.logs, ready=process.listens(SOCKET))


async def _forget_containers(layout: Layout, cni: Path) -> None:
    """Remove the containers that a run left in the store; kubelet would take minutes to.

    The CRI plugin reads them when it starts, so they go while containerd runs without it.
    """
    leftovers = [layout.containerd / _CRI / kind for kind in ("containers", "sandboxes")]
    if not any(folder.is_dir() and any(folder.iterdir()) for folder in leftovers):
        return
    running = await _run(layout, cni, (*_UNUSED, _CRI))
    containers = (await ctr(["containers", "list", "--quiet"])).split()
    if containers:
        await ctr(["containers", "delete", *containers])
    await running.stop()
    for folder in leftovers:
        shutil.rmtree(folder)


async def _import_pause() -> None:
    image = images.pause()
    if image.digest in await ctr(["images", "list", f"name=={images.PAUSE_NAME}"]):
        return
    await ctr(["images", "import", "-"], image.archive(images.PAUSE_NAME))
