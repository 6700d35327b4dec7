"""Commands that build something, run to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import anyio

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LOG_LINES = 15

# Program -> what Debian calls the package that brings it; uv comes from the project's own set-up.
PACKAGES = {"gcc": "gcc", "mmdebstrap": "mmdebstrap", "nm": "binutils", "readelf": "binutils"}


async def run(command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output.

    Args:
        command: the command line.
        what: what it does, for the message when it fails.
        environment: its whole environment; this process's own by default.

    Raises:
        ClusterError: the program is missing or failed, with the last lines that it printed.
    """
    if shutil.which(command[0]) is None:
        package = PACKAGES.get(command[0], command[0])
        raise ClusterError(
            f"{command[0]} is not installed",
            where=what,
            next_command=f"apt-get install --no-install-recommends {package}",
        )
    done = await anyio.run_process(
        command, check=False, stderr=subprocess.PIPE, env=dict(os.environ if environment is None else environment)
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).decode(errors="replace").splitlines()[-_LOG_LINES:]
        raise ClusterError(f"{what} failed with status {done.returncode}:\n" + "\n".join(lines), where=command[0])
    return done.stdout.decode()


async def run_in(root: Path, command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command inside a root file system, with nothing of this process's environment, and return its output.

    Args:
        root: the root file system.
        command: the command line, with paths as seen inside.
        what: what it does, for the message when it fails.
        environment: variables besides PATH and HOME.

    Raises:
        ClusterError: it failed, with the last lines that it printed.
    """
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", **(environment or {})}  # noqa: S108 - inside
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return await run(["chroot", str(root), "/usr/bin/env", "-i", *assignments, *command], what=what)
