"""Calls of kubectl."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from ci.node.said import one_line
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl and the cluster that it talks to.

    Attributes:
        program: the file.
        kubeconfig: names the cluster.
    """

    program: Path
    kubeconfig: Path

    async def __call__(self, *arguments: str, content: bytes | None = None) -> str:
        """Run kubectl and return what it prints.

        Args:
            arguments: its arguments.
            content: what it reads from its standard input.

        Raises:
            ClusterError: it failed.
        """
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = await anyio.run_process(command, input=content, check=False, stderr=subprocess.PIPE)
        if done.returncode:
            raise ClusterError(
                f"kubectl {arguments[0]} failed: {one_line(done.stderr.decode(errors='replace'))}",
                where=str(self.kubeconfig),
                next_command=shlex.join(command),
            )
        return done.stdout.decode()

    async def apply(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Apply objects, server-side: CRDs are larger than the client-side annotation may be."""
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}).encode()
        await self("apply", "--server-side", "--filename=-", content=content)
