"""Running kubectl and helm against a cluster, without ever touching the user's current context."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import ByteReceiveStream, Process

    from servepath.cluster.model import Cluster

_WHERE_FROM = {
    "helm": "https://helm.sh/docs/intro/install: one program, 3.14 or newer",
    "kubectl": "https://kubernetes.io/docs/tasks/tools: one program, 1.30 or newer",
}

ENDING_S = 20.0
"""How long a command may take to put its work away: helm writes down that a release failed, one request."""


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
    return await run(helm_command(cluster, *arguments))


def helm_command(cluster: Cluster, *arguments: str) -> tuple[str, ...]:
    """Give the words that run helm against a cluster."""
    context = [f"--kube-context={cluster.context}"] if cluster.context else []
    return ("helm", f"--kubeconfig={cluster.kubeconfig}", *context, *arguments)


async def run(command: Sequence[str]) -> Finished:
    """Run a command to its end; cancelled, ask it to end and await that, for `ENDING_S` at most.

    A helm that is killed leaves its release pending, and no other helm touches such a release.

    Raises:
        ClusterError: the program is not installed; the message says where it is to be had.
    """
    try:
        with anyio.CancelScope(shield=True):  # cancelled in it, asyncio kills
            process = await anyio.open_process(command, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise ClusterError(
            f"{command[0]} is not installed",
            where="PATH",
            expected=f"{command[0]}, from {_WHERE_FROM.get(command[0], 'your distribution')}",
            next_command=f"{command[0]} version",
        ) from error
    output, complaint = bytearray(), bytearray()
    async with process:  # its end kills what is still running
        try:
            async with anyio.create_task_group() as readers:
                readers.start_soon(_read, process.stdout, output)
                readers.start_soon(_read, process.stderr, complaint)
                status = await process.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(ENDING_S, shield=True):
                await _end(process)
            raise
    return Finished(tuple(command), status, output.decode(errors="replace"), complaint.decode(errors="replace"))


async def _end(process: Process) -> None:
    """Ask a process to end, and read on meanwhile: one that cannot write does not end."""
    async with anyio.create_task_group() as readers:
        readers.start_soon(_read, process.stdout, bytearray())
        readers.start_soon(_read, process.stderr, bytearray())
        with suppress(ProcessLookupError):  # it has ended by itself
            process.terminate()
        await process.wait()
        readers.cancel_scope.cancel()  # a child of it may hold the other end open


async def _read(stream: ByteReceiveStream | None, into: bytearray) -> None:
    if stream is not None:
        async for chunk in stream:
            into += chunk
