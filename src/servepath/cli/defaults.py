"""What a command takes when nothing is said: the pins of `manifests/lock.yaml`, and who is running."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from servepath.evidence import RunInfo
from servepath.manifests import LOCK, manifests_digest, manifests_directory
from servepath.modelcar.plan import BuildOptions, source_date_epoch

if TYPE_CHECKING:
    from servepath.serving.model import Profile


def lock_file() -> Path:
    """Give the lock of this checkout."""
    return manifests_directory() / LOCK


def base_image(given: str) -> str:
    """Give the modelcar's base: the one that was given, or busybox of the lock."""
    return given or _pin("modelcar-base")


def engine_image(given: str, profile: Profile) -> str:
    """Give the engine: the one that was given, or vLLM of the lock for the profile's hardware."""
    hardware = "cpu" if profile.name.startswith("cpu") else "gpu"
    return given or _pin(f"vllm-{hardware}")


def build_options() -> BuildOptions:
    """Give the options of an image with SBOM and provenance; its creation time is SOURCE_DATE_EPOCH, or none."""
    return BuildOptions(created_s=source_date_epoch(), attest=True)


def _pin(name: str) -> str:
    from servepath.platform import lock  # noqa: PLC0415 - a YAML parser is a tenth of a short push

    return lock.read(lock_file()).image(name).reference


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
