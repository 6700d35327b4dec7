"""containerd pulls the image as a kubelet's node would, and shows the model bit by bit."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.interop.conftest import found
from tests.interop.forms import digests_below, hidden_from, output
from tests.interop.raw import put_scrambled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.forms import Shipped

pytestmark = pytest.mark.usefixtures("root")
KSERVE_UID = 1010
_SNAPSHOTTER = "--snapshotter=native"  # works on every file system, also inside a container
_CONFIG = """
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
"""


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


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_containerd(tmp_path_factory.mktemp("containerd")) as socket:
        yield socket


def test_containerd_pulls_and_mounts_it(containerd: Path, shipped: Shipped, tmp_path: Path) -> None:
    ctr: list[str | Path] = [found("ctr"), "--address", containerd]
    output([*ctr, "images", "pull", "--plain-http", _SNAPSHOTTER, shipped.reference])
    assert shipped.digest in output([*ctr, "images", "list"])
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    output([*ctr, "images", "mount", _SNAPSHOTTER, shipped.reference, mounted])
    try:
        assert digests_below(mounted / "models") == shipped.files
        assert hidden_from(mounted / "models", KSERVE_UID) == []
    finally:
        output([*ctr, "images", "unmount", _SNAPSHOTTER, mounted])


def test_containerd_refuses_layers_out_of_order(containerd: Path, shipped: Shipped) -> None:
    """The same pull fails on an image that is not what its config says."""
    digest = put_scrambled(shipped.registry, shipped.repository, shipped.digest)
    reference = f"{shipped.registry}/{shipped.repository}@{digest}"
    ctr: list[str | Path] = [
        found("ctr"),
        "--address",
        containerd,
        "--namespace",
        "broken",
    ]  # where nothing is unpacked yet
    with pytest.raises(AssertionError, match="wrong diff id"):
        output([*ctr, "images", "pull", "--plain-http", _SNAPSHOTTER, reference])
