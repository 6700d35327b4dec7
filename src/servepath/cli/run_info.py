"""What runs: what a report says of the command that made it."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from servepath.cli.defaults import lock_file
from servepath.evidence import RunInfo
from servepath.manifests import manifests_digest


def run_info(command: str = "") -> RunInfo:
    """Say what runs: revision, lock and command line (this process's own by default).

    Keys never come by argument, so none is in it.
    """
    return RunInfo(
        git_revision=_git_revision(),
        lock_digest=f"sha256:{hashlib.sha256(lock_file().read_bytes()).hexdigest()}",
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command or shlex.join(["servepath", *sys.argv[1:]]),
        manifests_digest=manifests_digest(),
    )


def _git_revision() -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
