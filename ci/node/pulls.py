"""How long containerd takes to pull one model in each form of its modelcar, measured in the embedded node.

    uv run python -m ci.node exec -- python -m ci.node.pulls --rounds 3

Each form is pulled once in each round, the rounds one after the other, so that what else the machine does falls on all
of them. The table is Markdown.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import anyio.to_thread
import httpx
import numpy as np
import typer

from ci.node import holder, images
from ci.node.containerd import SOCKET
from ci.node.layout import from_environment
from ci.node.models import prepare_smollm2
from ci.node.registry import ADDRESS
from servepath.cli.output import console_line, print_text
from servepath.cli.running import run, run_app
from servepath.errors import ClusterError, UsageError
from servepath.modelcar.build import build_and_push
from servepath.modelcar.image.compress import Compression
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.source.directory import open_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_NAMESPACE = "servepath-pulls"
_SHARDS = 8
_SYNTHETIC = "synthetic-"
_MTIME_S = 1
"""Of every file in these images: no layer is one that the node has for another reason."""
_GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CHUNK_BYTES = 4 << 20
_SMALL_LAYER_BYTES = 1 << 20
_LINK_CLASS = "1:20"
_PORT = ADDRESS.rpartition(":")[2]


@dataclass(slots=True)
class Form:
    """One model in one form.

    Attributes:
        model: the model's name.
        name: what is special about it.
        reference: the image in the node's registry, by digest.
        layer_count: how many layers the image has, its base among them.
        sent_bytes: what the registry sends, all layers together.
        wall_s: of each pull, seconds.
        cpu_s: of each pull, CPU seconds of containerd.
    """

    model: str
    name: str
    reference: str
    layer_count: int
    sent_bytes: int
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


def main(
    source: Annotated[
        list[Path] | None, typer.Option(help="Model directory; repeatable. SmolLM2-135M when not given.")
    ] = None,
    synthetic_mb: Annotated[int, typer.Option(help="Also a model of this many MB with random bf16 weights.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each form is pulled.")] = 3,
    link_mbit: Annotated[
        int, typer.Option(help="Limit what the registry sends to this many Mbit/s; 0 leaves the loopback as it is.")
    ] = 0,
) -> None:
    """Pull each model plain, sharded, as zstd and as gzip, and print the table."""
    if not holder.is_inside():
        raise UsageError(
            "this works inside a node", where="ci.node.pulls", next_command="uv run python -m ci.node exec -- …"
        )
    print_text(run(lambda: _measure(source or [], synthetic_mb, rounds, link_mbit)))


async def _measure(sources: Sequence[Path], synthetic_mb: int, rounds: int, link_mbit: int) -> str:
    with tempfile.TemporaryDirectory(prefix="servepath-pulls-") as temporary:
        directories = list(sources) or [await prepare_smollm2(from_environment().cache)]
        if synthetic_mb:
            made = Path(temporary) / f"{_SYNTHETIC}{synthetic_mb}mb"
            await anyio.to_thread.run_sync(_write_gaussian, directories[0], made, synthetic_mb)
            directories.append(made)
        base = await images.push(images.busybox(), ADDRESS, "servepath/busybox")
        forms = [form for directory in directories for form in await _forms(directory, base)]
    async with _link(link_mbit):
        for number in range(rounds):
            for form in forms:
                await _pull(form)
                console_line(f"round {number + 1}: {form.model}, {form.name}: {form.wall_s[-1]:.2f} s")
    return table(forms)


async def _forms(directory: Path, base: str) -> list[Form]:
    """Push a model in every form."""
    source = await anyio.to_thread.run_sync(open_source, directory)
    model = directory.name if directory.name.startswith(_SYNTHETIC) else source.name
    shard_bytes = sum((directory / name).stat().st_size for name in source.files) // _SHARDS + (1 << 20)
    plain = BuildOptions(created_s=_MTIME_S)
    built = {
        "uncompressed": plain,
        f"uncompressed, {_SHARDS} shards": BuildOptions(created_s=_MTIME_S, reshard_bytes=shard_bytes),
        "zstd": BuildOptions(created_s=_MTIME_S, compression=Compression.ZSTD),
        f"zstd, {_SHARDS} shards": BuildOptions(
            created_s=_MTIME_S, reshard_bytes=shard_bytes, compression=Compression.ZSTD
        ),
    }
    forms = []
    async with httpx.AsyncClient(base_url=f"http://{ADDRESS}", trust_env=False, timeout=300) as http:
        for number, (name, options) in enumerate(built.items()):
            repository = f"servepath/pulls-{number}"
            modelcar = await build_and_push(source, base, ADDRESS, repository, build=options)
            forms.append(await _form(http, model, name, modelcar.reference))
        forms.append(await _gzipped(http, forms[0]))
    return forms


async def _form(http: httpx.AsyncClient, model: str, name: str, reference: str) -> Form:
    layers = (await _manifest(http, reference))["layers"]
    return Form(model, name, reference, len(layers), sum(layer["size"] for layer in layers))


async def _manifest(http: httpx.AsyncClient, reference: str) -> dict[str, Any]:
    repository, _, digest = reference.partition("/")[2].partition("@")
    answer = await http.get(f"/v2/{repository}/manifests/{digest}", headers={"Accept": _MANIFEST})
    manifest: dict[str, Any] = answer.raise_for_status().json()
    return manifest


async def _gzipped(http: httpx.AsyncClient, plain: Form) -> Form:
    """Push an image again with its layers as `docker build` makes them: gzip."""
    repository = plain.reference.partition("/")[2].partition("@")[0]
    manifest = await _manifest(http, plain.reference)
    for layer in manifest["layers"]:
        if layer["size"] < _SMALL_LAYER_BYTES or layer["mediaType"].endswith("gzip"):
            continue
        with tempfile.TemporaryFile() as packed:
            async with http.stream("GET", f"/v2/{repository}/blobs/{layer['digest']}") as answer:
                with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as archive:
                    async for part in answer.raise_for_status().aiter_raw(_CHUNK_BYTES):
                        await anyio.to_thread.run_sync(archive.write, part)
            packed.seek(0)
            digest = f"sha256:{hashlib.file_digest(packed, 'sha256').hexdigest()}"
            size = packed.tell()
            upload = (await http.post(f"/v2/{repository}/blobs/uploads/")).raise_for_status()
            location = httpx.URL(upload.headers["Location"]).copy_merge_params({"digest": digest})
            packed.seek(0)
            (
                await http.put(location, content=_chunks(packed), headers={"Content-Length": str(size)})
            ).raise_for_status()
        layer.update(mediaType=_GZIP_LAYER, digest=digest, size=size)
    content = json.dumps(manifest).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    put = await http.put(
        f"/v2/{repository}/manifests/{digest}", content=content, headers={"Content-Type": manifest["mediaType"]}
    )
    put.raise_for_status()
    return await _form(http, plain.model, "gzip", f"{ADDRESS}/{repository}@{digest}")


async def _chunks(file: Any) -> AsyncIterator[bytes]:
    while part := file.read(_CHUNK_BYTES):
        yield part


async def _pull(form: Form) -> None:
    """Pull an image that is not there, and take it away again."""
    pid = await _containerd()
    before_s, began_s = _cpu_s(pid), time.monotonic()
    await _ctr("images", "pull", "--plain-http", form.reference)
    form.wall_s.append(time.monotonic() - began_s)
    form.cpu_s.append(_cpu_s(pid) - before_s)
    await _ctr("images", "remove", "--sync", form.reference)


async def _ctr(*arguments: str) -> None:
    command = ["ctr", "--address", str(SOCKET), "--namespace", _NAMESPACE, *arguments]
    done = await anyio.run_process(command, check=False)
    if done.returncode:
        raise ClusterError(
            f"ctr {' '.join(arguments)} failed: {done.stderr.decode(errors='replace').strip()}", where=str(SOCKET)
        )


async def _containerd() -> int:
    return int((await anyio.run_process(["pgrep", "--exact", "containerd"])).stdout.split()[0])


def _cpu_s(pid: int) -> float:
    times = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(int(ticks) for ticks in times) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _link(mbit: int) -> AsyncIterator[None]:
    """Limit what comes from the registry's port to a rate, within this node's own network namespace."""
    if not mbit:
        yield
        return
    root = ["qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb", "default", "10"]
    everything = ["class", "add", "dev", "lo", "parent", "1:", "classid", "1:10", "htb", "rate", "100gbit"]
    link = ["class", "add", "dev", "lo", "parent", "1:", "classid", _LINK_CLASS, "htb", "rate", f"{mbit}mbit"]
    match = ["match", "ip", "sport", _PORT, "0xffff", "flowid", _LINK_CLASS]
    choose = ["filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", "u32", *match]
    try:
        for arguments in (root, everything, link, choose):
            await anyio.run_process(["tc", *arguments], stderr=sys.stderr)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.run_process(["tc", "qdisc", "del", "dev", "lo", "root"], check=False)


def _write_gaussian(like: Path, directory: Path, size_mb: int) -> None:
    """Write a model with weights as a normal distribution gives them: bf16 of this kind packs as trained weights do."""
    directory.mkdir()
    for path in like.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and "index" not in path.name:
            shutil.copy(path, directory)
    rows, width = 4096, 1024
    count = max(1, size_mb * 1_000_000 // (2 * rows * width))
    size_bytes = 2 * rows * width
    header = {
        f"layer.{number}.weight": {
            "dtype": "BF16",
            "shape": [rows, width],
            "data_offsets": [number * size_bytes, (number + 1) * size_bytes],
        }
        for number in range(count)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(42)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count):
            values = random.normal(0, 0.02, rows * width).astype(np.float32)
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def table(forms: Sequence[Form]) -> str:
    """Give the pulls as a Markdown table: medians, and every single time."""
    lines = [
        "| model | form | layers | sent | median | each pull | CPU of containerd |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for form in forms:
        each = ", ".join(f"{value:.1f}" for value in form.wall_s)
        lines.append(
            f"| {form.model} | {form.name} | {form.layer_count} | {form.sent_bytes / 1e6:.0f} MB "
            f"| {statistics.median(form.wall_s):.1f} s | {each} s | {statistics.median(form.cpu_s):.1f} s |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    run_app(app)
