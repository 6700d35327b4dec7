"""Small container images, written without a container engine: same input, same digest.

`pause` holds a pod's namespaces; `busybox` stands in for the base image of modelcars. Both come from Debian's static
binaries.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx

from servepath.errors import ClusterError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAUSE_NAME = "servepath.local/pause:1"
_APPLETS = ("cat", "cp", "find", "ln", "ls", "mkdir", "mv", "nc", "rm", "sh", "sleep", "test", "true")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link in an image."""

    target: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one layer.

    Attributes:
        config: its configuration, JSON.
        layer: its layer, a gzipped tar archive.
        manifest: its manifest, JSON.
    """

    config: bytes
    layer: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """The manifest's digest, `sha256:…`."""
        return _digest(self.manifest)

    def archive(self, name: str) -> bytes:
        """The image as a tar of an OCI layout, under `name`, for `ctr images import`."""
        return _tar(self._layout(name))

    def write(self, folder: Path, name: str) -> None:
        """Write the image into a new folder as an OCI layout, under `name`."""
        for path, content in self._layout(name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

    def _layout(self, name: str) -> dict[str, bytes]:
        entry = {
            **_descriptor(_MANIFEST, self.manifest),
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }
        blobs = {f"blobs/sha256/{sha256(blob).hexdigest()}": blob for blob in (self.config, self.layer, self.manifest)}
        return {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
            **blobs,
        }


def build(files: Mapping[str, bytes | Link], entrypoint: Sequence[str] = (), command: Sequence[str] = ()) -> Image:
    """An image of executable files and links.

    Args:
        files: by their path without the leading slash; their folders come by themselves.
        entrypoint: the image's entry point.
        command: the image's default command.
    """
    archive = _tar(files)
    layer = gzip.compress(archive, compresslevel=6, mtime=0)
    run = {"Env": ["PATH=/bin"], "Entrypoint": list(entrypoint), "Cmd": list(command)}
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {name: value for name, value in run.items() if value},
            "history": [{"created_by": "servepath"}],  # tools such as olot count layers by it
            "rootfs": {"type": "layers", "diff_ids": [_digest(archive)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer)],
        }
    )
    return Image(config, layer, manifest)


async def shared_libraries(program: Path) -> list[Path]:
    """Give the shared libraries and the loader that a program is linked with, by the paths that it looks for."""
    listed = (await anyio.run_process(["ldd", str(program)])).stdout.decode().split()
    return sorted({Path(word) for word in listed if word.startswith("/")})


def pause() -> Image:
    """The image of a pod's sandbox: process 1 waits, and reaps what the pod's containers leave."""
    files = {"bin/tini": _program("/usr/bin/tini-static"), "bin/busybox": _program("/bin/busybox")}
    return build(files, entrypoint=("/bin/tini", "--", "/bin/busybox", "sleep", "infinity"))


def busybox() -> Image:
    """A base with the shell and the few commands that KServe's modelcar containers call."""
    links: dict[str, bytes | Link] = {f"bin/{applet}": Link("busybox") for applet in _APPLETS}
    return build({"bin/busybox": _program("/bin/busybox"), **links}, command=("sh",))


async def push(image: Image, registry: str, repository: str) -> str:
    """Push an image over plain HTTP and return its reference by digest.

    Raises:
        RegistryError: the registry refused something.
    """
    async with httpx.AsyncClient(base_url=f"http://{registry}", trust_env=False) as client:
        for blob in (image.config, image.layer):
            path = f"/v2/{repository}/blobs"
            if (await client.head(f"{path}/{_digest(blob)}")).status_code == httpx.codes.OK:
                continue
            upload = _accepted(await client.post(f"{path}/uploads/"))
            location = httpx.URL(upload.headers["Location"]).copy_merge_params({"digest": _digest(blob)})
            _accepted(await client.put(location, content=blob))
        target = f"/v2/{repository}/manifests/{image.digest}"
        _accepted(await client.put(target, content=image.manifest, headers={"Content-Type": _MANIFEST}))
    return f"{registry}/{repository}@{image.digest}"


def _accepted(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise RegistryError(f"HTTP {response.status_code}: {response.text.strip()}", where=str(response.request.url))
    return response


def _program(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ClusterError(
            "a static program for the node's images is missing", where=path, next_command="python -m ci.node prepare"
        ) from None


def _tar(files: Mapping[str, bytes | Link]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
        for name in sorted({*files, *folders}):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            content = files.get(name)
            if isinstance(content, Link):
                entry.type, entry.linkname = tarfile.SYMTYPE, content.target
                archive.addfile(entry)
            elif content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _descriptor(media_type: str, blob: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{sha256(blob).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
