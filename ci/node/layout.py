"""Where the embedded node keeps its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one node.

    Attributes:
        cache: what is built once and shared by every node: programs, models, engine content.
        name: the node's name; two nodes with two names run side by side.
    """

    cache: Path
    name: str = "node"

    @property
    def state(self) -> Path:
        """Everything that belongs to this node alone."""
        return self.cache / "nodes" / self.name

    @property
    def record(self) -> Path:
        """The holder that runs now, or that a killed run left."""
        return self.state / "holder.json"

    @property
    def containerd(self) -> Path:
        """The image store, which outlives a run."""
        return self.state / "containerd"

    @property
    def registry(self) -> Path:
        """The registry's storage, which outlives a run."""
        return self.state / "registry"

    @property
    def run(self) -> Path:
        """What one run writes: certificates, configuration, volumes. The next run starts from nothing."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """One log file per program, of the latest run."""
        return self.state / "log"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; its address works inside the holder."""
        return self.run / "admin.kubeconfig"

    @property
    def cgroup(self) -> str:
        """The cgroup that holds every pod of this node, the same in each controller."""
        return f"servepath-{sha256(str(self.state).encode()).hexdigest()[:10]}"


def from_environment() -> Layout:
    """The layout that `SERVEPATH_CACHE` (default `~/.cache/servepath`) and `SERVEPATH_NODE` (default `node`) name."""
    cache = Path(os.environ.get("SERVEPATH_CACHE") or Path.home() / ".cache" / "servepath")
    return Layout(cache=cache.expanduser().absolute(), name=os.environ.get("SERVEPATH_NODE") or "node")
