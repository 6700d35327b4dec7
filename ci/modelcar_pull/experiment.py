"""Rounds in which an empty containerd pulls every form of one model from docker-registry, in a drawn order."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.modelcar_bench.experiment import Registry, running
from ci.node import process
from servepath.errors import ClusterError
from servepath.modelcar.build import build_and_push
from servepath.modelcar.image.compress import Compression
from servepath.modelcar.image.oci import read_image
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.source.directory import open_source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from servepath.modelcar.model import ModelSource


GZIP = "one gzip layer"
"""What most tools build; servepath does not, so skopeo makes it of the uncompressed form."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A form in the registry: by digest, how many layers hold the model, and the size of all its blobs."""

    reference: str
    digest: str
    layers: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull: the form, how long fetching the blobs and unpacking them took, and what the disk holds after it."""

    form: str
    layers: int
    size_bytes: int
    fetch_s: float
    unpack_s: float
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often each form is pulled, and the seed of the order within the rounds."""

    count: int
    seed: int


async def measure(model: Path, base: str, scratch: Path, rounds: Rounds, said: Callable[[Pull], None]) -> None:
    """Push every form once, then pull each in every round.

    Args:
        model: the model's directory.
        base: the base image.
        scratch: an empty folder on the disk to measure.
        rounds: how often, and in which order.
        said: called with each pull.

    Raises:
        ClusterError: containerd or the registry failed.
    """
    source = open_source(model)
    shard_bytes = sum((model / name).stat().st_size for name in source.files) // 4
    forms = {
        "one layer": BuildOptions(own_layer_bytes=1 << 50),
        "shards": BuildOptions(reshard_bytes=shard_bytes),
        "one zstd layer": BuildOptions(own_layer_bytes=1 << 50, compression=Compression.ZSTD),
        "zstd shards": BuildOptions(reshard_bytes=shard_bytes, compression=Compression.ZSTD),
    }
    order = random.Random(rounds.seed)  # noqa: S311 - an order, not a secret
    for name in ("plain", "gzip"):
        (scratch / name).mkdir()
    async with (
        running(Registry.DEBIAN, scratch / "plain") as host,
        running(Registry.DEBIAN, scratch / "gzip") as other,
    ):
        pushed = {form: await _push(source, base, host, build) for form, build in forms.items()}
        pushed[GZIP] = await _gzipped(pushed["one layer"], other, scratch)
        for _ in range(rounds.count):
            for form in order.sample(list(pushed), len(pushed)):
                said(await _pull(form, pushed[form], scratch))


async def _push(source: ModelSource, base: str, host: str, build: BuildOptions) -> Pushed:
    modelcar = await build_and_push(source, base, host, "pull", build=build)
    layers = len([layer for layer in modelcar.layers if layer.members])
    return Pushed(modelcar.reference, modelcar.digest, layers, modelcar.size_bytes)


async def _gzipped(plain: Pushed, host: str, scratch: Path) -> Pushed:
    """Push an image to another registry, where skopeo compresses its layers; those that a registry has it reuses."""
    digest_file = scratch / "gzip.digest"
    options = ["--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", f"--digestfile={digest_file}"]
    copy = ["skopeo", "copy", *options, f"docker://{plain.reference}", f"docker://{host}/pull:v1"]
    done = await anyio.run_process(copy, check=False)
    if done.returncode:
        raise ClusterError(f"skopeo copy failed: {done.stderr.decode()[-300:]}", where=" ".join(copy))
    digest = await anyio.Path(digest_file).read_text()
    async with open_registry(host, RegistryOptions()) as client:
        image = await read_image(Repository(client, "pull"), digest)
    size_bytes = image.config.size_bytes + sum(layer.size_bytes for layer in image.layers)
    return Pushed(f"{host}/pull@{digest}", digest, plain.layers, size_bytes)


async def _pull(form: str, pushed: Pushed, scratch: Path) -> Pull:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root = Path(folder) / "root"
        async with _containerd(Path(folder), root) as ctr:
            await anyio.to_thread.run_sync(os.sync)
            started = time.monotonic()
            await ctr("content", "fetch", "--plain-http", pushed.reference)
            fetched = time.monotonic()
            await ctr("snapshots", "unpack", pushed.digest)
            unpacked = time.monotonic()
            disk_bytes = await anyio.to_thread.run_sync(_disk_bytes, root)
    return Pull(form, pushed.layers, pushed.size_bytes, fetched - started, unpacked - fetched, disk_bytes)


@asynccontextmanager
async def _containerd(folder: Path, root: Path) -> AsyncGenerator[Callable[..., Awaitable[None]]]:
    """Run an empty containerd and give its `ctr`."""
    address = folder / "containerd.sock"
    config = folder / "containerd.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", f"--config={config}", f"--root={root}", f"--state={folder / 'state'}"]
    server = await process.start(
        "containerd", [*command, f"--address={address}"], logs=folder, ready=process.listens(address)
    )

    async def ctr(*arguments: str) -> None:
        done = await anyio.run_process(["ctr", f"--address={address}", *arguments], check=False)
        if done.returncode:
            raise ClusterError(f"ctr {arguments[0]} failed: {done.stderr.decode()[-300:]}", where=str(address))

    try:
        yield ctr
    finally:
        await server.stop()


def _disk_bytes(root: Path) -> int:
    """Give what the files below a folder occupy."""
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))


def require_programs() -> None:
    """Check that what is measured is installed.

    Raises:
        ClusterError: it is not, or this is not root.
    """
    missing = [name for name in ("containerd", "ctr", "docker-registry", "skopeo") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        raise ClusterError(
            f"{missing[0]} is not installed" if missing else "not root",
            expected="root, containerd, docker-registry and skopeo",
            next_command="apt-get install containerd docker-registry skopeo",
        )
