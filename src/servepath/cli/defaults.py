"""What a command takes when nothing is said: the pins of `manifests/lock.yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.manifests import LOCK, manifests_directory
from servepath.modelcar.plan import BuildOptions, source_date_epoch

if TYPE_CHECKING:
    from pathlib import Path

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
