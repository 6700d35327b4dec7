"""KServe's modelcar containers, run as KServe 0.19 runs them, on what umoci unpacked from the image.

The commands are those of KServe's `CreateModelcarInitContainer` and `CreateModelcarContainer`
(https://github.com/kserve/kserve/blob/v0.19.0/pkg/utils/storage.go), after the kubelet turned `$$` into `$`.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.interop.forms import output
from tests.interop.tools import found

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.forms import Shipped

KSERVE_UID = 1010
INIT = (
    "echo 'Pre-fetching modelcar: ' && [ -d /models ] && [ \"$(ls -A /models)\" ] "
    "&& echo 'OK ... Prefetched and valid (/models exists)' "
    "|| (echo 'NOK ... Prefetched but modelcar is invalid (/models does not exist or is empty)' && exit 1)"
)
SIDECAR = "ln -sf /proc/$$/root/models /mnt/models && sleep infinity"

# A pod: one process namespace, one shared volume at /mnt, and a root file system for each of its two containers.
_POD = """
set -eu
mount --make-rprivate /
for root in "$CAR" "$ENGINE"; do
  mkdir -p "$root/proc" "$root/mnt"
  mount -t proc proc "$root/proc"
  mount --bind "$VOLUME" "$root/mnt"
done
chroot --userspec="$USER_ID:0" "$CAR" sh -c "$SIDECAR" &
sidecar=$!
tries=0
until [ -L "$VOLUME/models" ]; do
  tries=$((tries + 1)); [ "$tries" -lt 200 ] || exit 3
  sleep 0.05
done
chroot --userspec="$USER_ID:0" "$ENGINE" sh -c \
  'cd /mnt/models/ && busybox find . -type f -exec busybox sha256sum {} +'
kill "$sidecar"
"""


pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def rootfs(skopeo: Path, umoci: Path, shipped: Shipped, tmp_path: Path) -> Path:
    """Unpack the image."""
    return unpacked(skopeo, umoci, shipped.reference, tmp_path / "car")


def unpacked(skopeo: Path, umoci: Path, reference: str, directory: Path) -> Path:
    layout = directory / "layout"
    directory.mkdir()
    output(
        [skopeo, "copy", "--preserve-digests", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:v1"]
    )
    output([umoci, "unpack", "--image", f"{layout}:v1", directory / "bundle"])
    return directory / "bundle" / "rootfs"


def in_container(rootfs: Path, command: str) -> subprocess.CompletedProcess[str]:
    chroot: list[str | Path] = [
        "env",
        "-i",
        "PATH=/bin",
        found("chroot"),
        f"--userspec={KSERVE_UID}:0",
        rootfs,
        "sh",
        "-c",
        command,
    ]
    return subprocess.run(chroot, capture_output=True, text=True, check=False)


def test_the_init_container_finds_the_model(rootfs: Path) -> None:
    done = in_container(rootfs, INIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "OK ... Prefetched and valid" in done.stdout


def test_the_init_container_refuses_an_image_without_a_model(
    skopeo: Path, umoci: Path, base: str, tmp_path: Path
) -> None:
    done = in_container(unpacked(skopeo, umoci, base, tmp_path / "base"), INIT)
    assert done.returncode == 1
    assert "NOK ... Prefetched but modelcar is invalid" in done.stdout


def test_the_engine_reads_every_file_through_the_sidecars_link(
    rootfs: Path, skopeo: Path, umoci: Path, base: str, shipped: Shipped, tmp_path: Path
) -> None:
    engine = unpacked(skopeo, umoci, base, tmp_path / "engine")
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)  # as an emptyDir
    names = {"CAR": rootfs, "ENGINE": engine, "VOLUME": volume}
    environment = {name: str(path) for name, path in names.items()} | {"SIDECAR": SIDECAR, "USER_ID": str(KSERVE_UID)}
    pod = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _POD],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
    )
    assert pod.returncode == 0, pod.stderr
    lines = [line.partition("  ./") for line in pod.stdout.splitlines()]
    assert {name: digest for digest, _, name in lines} == shipped.files
    assert str((volume / "models").readlink()).startswith("/proc/")
