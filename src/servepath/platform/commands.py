"""Running kubectl and helm against a cluster, without ever touching the user's current context."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.cluster.model import Cluster

_WHERE_FROM = {
    "helm": "https://helm.sh/docs/intro/install: one program, 3.14 or newer",
    "kubectl": "https://kubernetes.io/docs/tasks/tools: one program, 1.30 or newer",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended.

    Attributes:
        command: its words.
        status: its exit status.
        output: what it printed.
        error: what it complained about.
    """

    command: tuple[str, ...]
    status: int
    output: str
    error: str

    def succeeded(self) -> str:
        """Give what it printed.

        Raises:
            ClusterError: it failed; the message is its own.
        """
        if self.status:
            last = self.error.strip() or self.output.strip()
            raise ClusterError(f"{self.command[0]} failed: {last}", next_command=" ".join(self.command))
        return self.output


async def kubectl(cluster: Cluster, *arguments: str) -> Finished:
    """Run kubectl.

    Raises:
        ClusterError: kubectl is not installed.
    """
    context = [f"--context={cluster.context}"] if cluster.context else []
    return await run(["kubectl", f"--kubeconfig={cluster.kubeconfig}", *context, *arguments])


async def helm(cluster: Cluster, *arguments: str) -> Finished:
    """Run helm.

    Raises:
        ClusterError: helm is not installed.
    """
    context = [f"--kube-context={cluster.context}"] if cluster.context else []
    return await run(["helm", f"--kubeconfig={cluster.kubeconfig}", *context, *arguments])


async def run(command: Sequence[str]) -> Finished:
    """Run a command to its end.

    Raises:
        ClusterError: the program is not installed; the message says where it is to be had.
    """
    try:
        done = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise ClusterError(
            f"{command[0]} is not installed",
            where="PATH",
            expected=f"{command[0]}, from {_WHERE_FROM.get(command[0], 'your distribution')}",
            next_command=f"{command[0]} version",
        ) from error
    return Finished(
        tuple(command), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
