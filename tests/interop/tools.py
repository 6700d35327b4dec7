"""The programs of others: where they are, and how containerd is run and asked."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ci.node import holder, oci_tools, programs
from ci.node.layout import from_environment
from tests.interop.forms import output

if TYPE_CHECKING:
    from collections.abc import Iterator

SNAPSHOTTER = "--snapshotter=native"  # works on every file system, also inside a container
_CONFIG = """
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
"""


def found(name: str) -> Path:
    """Return the path of a program.

    Where everything was prepared a missing one is a failure, elsewhere a reason to skip.
    """
    built = {program.name: programs.target(program, from_environment().cache) for program in oci_tools.PROGRAMS}
    path = str(built[name] / name) if name in built else shutil.which(name)
    if path is not None and Path(path).is_file():
        return Path(path)
    message = f"{name} is not there: python -m ci.node prepare"
    if holder.is_inside():
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def running_containerd(directory: Path) -> Iterator[Path]:
    """Run a containerd with folders of its own and yield its socket."""
    socket = directory / "c.sock"
    config = directory / "config.toml"
    config.write_text(_CONFIG.format(root=directory / "root", state=directory / "state", socket=socket))
    log_path = directory / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen([found("containerd"), "--config", config], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while "containerd successfully booted" not in log_path.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"containerd does not start: {log_path.read_text()[-2000:]}")
            time.sleep(0.05)
        yield socket
    finally:
        process.terminate()
        process.wait()


def ctr(socket: Path, *arguments: str | Path, namespace: str = "default") -> str:
    """Ask containerd; images and what is unpacked of them are kept by namespace."""
    return output([found("ctr"), "--address", socket, "--namespace", namespace, *arguments])


def pull(socket: Path, reference: str, *flags: str, namespace: str = "default") -> None:
    """Pull an image and unpack it."""
    ctr(socket, "images", "pull", "--plain-http", SNAPSHOTTER, *flags, reference, namespace=namespace)
