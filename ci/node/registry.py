"""A container registry on the holder's loopback: Debian's docker-registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ci.node import process

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.process import Process

ADDRESS = "127.0.0.1:5000"


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry.

    Attributes:
        address: `host:port`, plain HTTP.
        running: its process.
    """

    address: str
    running: Process


async def start(storage: Path, run: Path, logs: Path) -> Registry:
    """Start the registry.

    Args:
        storage: where blobs are kept; they outlive the run.
        run: the folder for its configuration.
        logs: the folder for its log.

    Raises:
        ClusterError: it died or was not ready in time.
    """
    path = _write_config(storage, run)
    running = await process.start(
        "registry", ["docker-registry", "serve", str(path)], logs=logs, ready=process.answers(f"http://{ADDRESS}/v2/")
    )
    return Registry(ADDRESS, running)


def _write_config(storage: Path, run: Path) -> Path:
    storage.mkdir(parents=True, exist_ok=True)
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": ADDRESS},
    }
    path = run / "registry.json"  # JSON is YAML too
    path.write_text(json.dumps(config))
    return path
