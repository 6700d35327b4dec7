"""Where the manifests and their lock are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from servepath.errors import UsageError

LOCK = "lock.yaml"


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


def manifests_digest(directory: Path | None = None) -> str:
    """Give one digest of every manifest: what is applied follows from them, the lock and the spec alone.

    It is the sha256 of a line for each file, `<sha256 of its bytes>  <its path>`, in the order of the paths, as
    `sha256sum` prints them. The lock has a digest of its own and is left out.

    Args:
        directory: the manifests directory; the checkout's own by default.

    Raises:
        UsageError: servepath was installed without its manifests.
    """
    root = directory or manifests_directory()
    files = sorted(path for path in root.rglob("*") if path.is_file() and path != root / LOCK)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n" for path in files
    ]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
