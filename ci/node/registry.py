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


async def start(storage: Path, run: Path, logs: Path, address: str = ADDRESS) -> Registry:
    """Start the registry.

    Args:
        storage: where blobs are kept; they outlive the run.
        run: the folder for its configuration.
        logs: the folder for its log.
        address: `host:port` to listen on.

    Raises:
        ClusterError: it died or was not ready in time.
    """
    path = _write_config(storage, run, address)
    running = await process.start(
        "registry", ["docker-registry", "serve", str(path)], logs=logs, ready=process.answers(f"http://{address}/v2/")
    )
    return Registry(address, running)


def _write_config(storage: Path, run: Path, address: str) -> Path:
    storage.mkdir(parents=True, exist_ok=True)
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": address},
    }
    path = run / "registry.json"  # JSON is YAML too
    path.write_text(json.dumps(config))
    return path
