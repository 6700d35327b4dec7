# ruff: noqa: ASYNC210 - a test has nothing else to do while it waits
from __future__ import annotations

import gzip
import io
import json
import shutil
import socket
import tarfile
from hashlib import sha256
from typing import TYPE_CHECKING

import httpx
import pytest

from ci.node import images, process
from ci.node.images import Link
from servepath.errors import RegistryError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

FILES: dict[str, bytes | Link] = {"bin/busybox": b"\x7fELF", "bin/sh": Link("busybox")}


def test_the_same_files_give_the_same_digest_in_any_order() -> None:
    other_order = dict(reversed(FILES.items()))
    assert images.build(FILES).digest == images.build(other_order).digest
    assert images.build(FILES).digest != images.build({**FILES, "bin/busybox": b"\x7fELG"}).digest
    assert images.build(FILES).digest != images.build(FILES, entrypoint=("/bin/sh",)).digest


def test_the_layer_holds_programs_and_links() -> None:
    image = images.build(FILES, command=("sh",))
    archive = gzip.decompress(image.layer)
    with tarfile.open(fileobj=io.BytesIO(archive)) as layer:
        kinds = {entry.name: (entry.type, entry.mode, entry.linkname, entry.mtime) for entry in layer}
    assert kinds == {
        "bin": (tarfile.DIRTYPE, 0o755, "", 0),
        "bin/busybox": (tarfile.REGTYPE, 0o755, "", 0),
        "bin/sh": (tarfile.SYMTYPE, 0o755, "busybox", 0),
    }
    config = json.loads(image.config)
    assert config["rootfs"]["diff_ids"] == [f"sha256:{sha256(archive).hexdigest()}"]
    assert config["config"] == {"Cmd": ["sh"], "Env": ["PATH=/bin"]}


def test_the_archive_is_an_oci_layout_under_the_images_name() -> None:
    image = images.build(FILES)
    with tarfile.open(fileobj=io.BytesIO(image.archive("example.test/x:1"))) as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
        blob = archive.extractfile(f"blobs/sha256/{image.digest.removeprefix('sha256:')}")
        assert blob is not None
        assert blob.read() == image.manifest
    assert entry["annotations"]["io.containerd.image.name"] == "example.test/x:1"
    assert entry["digest"] == image.digest


def test_the_written_layout_has_the_archive_s_files(tmp_path: Path) -> None:
    image = images.build(FILES)
    image.write(tmp_path / "base", "base")
    with tarfile.open(fileobj=io.BytesIO(image.archive("base"))) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        expected = {name: file.read() for name, file in files.items() if file is not None}
    below = (tmp_path / "base").rglob("*")
    written = {str(path.relative_to(tmp_path / "base")): path.read_bytes() for path in below if path.is_file()}
    assert written == expected


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")
async def test_push_gives_a_reference_that_the_registry_serves(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path)}}, "http": {"addr": address}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(tmp_path / "config.json")]
    ready = process.answers(f"http://{address}/v2/")
    running = await process.start("registry", command, logs=tmp_path, ready=ready)
    try:
        image = images.build(FILES)
        reference = await images.push(image, address, "servepath/test")
        assert reference == f"{address}/servepath/test@{image.digest}"
        assert await images.push(image, address, "servepath/test") == reference
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        served = httpx.get(
            f"http://{address}/v2/servepath/test/manifests/{image.digest}", headers=accept, trust_env=False
        )
        assert served.content == image.manifest
        with pytest.raises(RegistryError, match="HTTP 404"):
            await images.push(image, address, "NOT-A-NAME")
    finally:
        await running.stop()
