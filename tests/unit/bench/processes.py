"""Real servers in processes of their own, for tests that measure them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from servepath.serving.model import Endpoint, ServingPath

if TYPE_CHECKING:
    from collections.abc import Iterator

QUEUE_SERVER = Path(__file__).with_name("queue_server.py")


@contextmanager
def queue_server(service_s: float, *options: str) -> Iterator[Endpoint]:
    """A server that serves one request after the other, each in `service_s`; it ends with the block."""
    command = [sys.executable, str(QUEUE_SERVER), f"--service-s={service_s}", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield endpoint_on(int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(timeout=10)


def endpoint_on(port: int) -> Endpoint:
    return Endpoint(
        path=ServingPath.RAW,
        base_url=f"http://127.0.0.1:{port}",
        host="",
        model="tiny",
        namespace="models",
        workload="tiny-raw",
        modelcar_digest="sha256:" + "a" * 64,
        engine_image="127.0.0.1:5000/servepath/engine@sha256:" + "b" * 64,
        ready_s=1.0,
    )
