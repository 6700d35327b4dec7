"""Where the manifests and their lock are."""

from __future__ import annotations

from pathlib import Path

from servepath.errors import UsageError


def manifests_directory() -> Path:
    """Find `manifests/` of the checkout that this file is part of.

    Raises:
        UsageError: servepath was installed without its manifests.
    """
    for parent in Path(__file__).resolve().parents:
        if (parent / "manifests" / "raw" / "base" / "kustomization.yaml").is_file():
            return parent / "manifests"
    raise UsageError(
        "the manifests directory is not here", where=str(Path(__file__)), expected="a checkout of servepath"
    )
