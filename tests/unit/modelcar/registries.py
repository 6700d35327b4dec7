"""Real registries on loopback ports: Debian's docker-registry, and the one that crane brings."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextmanager
def running_registry(directory: Path, auth: str = "", tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Run Debian's docker-registry on a free loopback port and yield its `host:port`."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    host = _free_address()
    config = directory / "config.yml"
    secured = f", tls: {{certificate: {tls[0]}, key: {tls[1]}}}" if tls else ""
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{host}', secret: test{secured}}}\n{auth}"
    )
    with _running([program, "serve", str(config)], host, directory / "log"):
        yield host


@contextmanager
def running_crane_registry(crane: Path, directory: Path) -> Iterator[str]:
    """Run `crane registry serve` on a free loopback port and yield its `host:port`."""
    host = _free_address()
    command = [str(crane), "registry", "serve", "--address", host, "--disk", str(directory / "blobs")]
    (directory / "blobs").mkdir()
    with _running(command, host, directory / "log"):
        yield host


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def _running(command: Sequence[str], host: str, log_path: Path) -> Iterator[None]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await_answer(host, process, log_path)
        yield
    finally:
        process.kill()
        process.wait()


def _await_answer(host: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"http://{host}/v2/", timeout=1)
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"the registry does not answer: {log_path.read_text()}")
