"""Verify a modelcar where it lies in a registry, without downloading the weights."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from servepath.errors import InputError, ServepathError
from servepath.evidence import CheckResult, Verdict
from servepath.modelcar.content import digest_of
from servepath.modelcar.image import DEFAULT_PLATFORM, Image, read_all, read_image
from servepath.modelcar.layers import LAYER_MEDIA_TYPE
from servepath.modelcar.parallel import run_all
from servepath.modelcar.reference import parse_pinned
from servepath.modelcar.registry import RegistryOptions, open_registry
from servepath.modelcar.repository import Repository
from servepath.modelcar.safetensors import LENGTH_BYTES, Header, header_length, parse_header
from servepath.modelcar.store import load_object
from servepath.modelcar.tarwalk import TarEntry, Window, list_entries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from servepath.modelcar.store import Descriptor, ImageSource

SUBJECT = "modelcar"
_READABLE = 0o444


class _FoundError(Exception):
    """What a check found instead of what it expected."""


class _SkippedError(Exception):
    """Why a check could not be made."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """The image under verification, and the entries of its uncompressed layers."""

    source: ImageSource
    image: Image
    entries: tuple[tuple[Descriptor, TarEntry], ...]

    @property
    def model_files(self) -> list[tuple[Descriptor, TarEntry]]:
        return [(layer, entry) for layer, entry in self.entries if entry.is_file and entry.name.startswith("models/")]


async def verify(reference: str, *, options: RegistryOptions | None = None) -> tuple[CheckResult, ...]:
    """Check a modelcar in its registry: manifest, config, blobs, members, safetensors headers.

    The digests of manifest and config are recomputed; layers are looked up, and their tar and safetensors headers are
    read by Range requests. `verify_content` recomputes the layers' digests too, for the price of reading every byte.

    Args:
        reference: `host/repository@sha256:…`.
        options: how registries are talked to.

    Raises:
        InputError: the reference has no digest.
        RegistryError: the manifest cannot be read at all.
    """
    async with _open(reference, options or RegistryOptions()) as subject:
        return tuple([await _run(check, subject, reference) for check in _CHECKS])


async def verify_content(reference: str, *, options: RegistryOptions | None = None) -> tuple[CheckResult, ...]:
    """Check as `verify` does, then stream every blob, storing nothing, and recompute its digest.

    Raises:
        InputError: the reference has no digest.
        RegistryError: the manifest cannot be read at all.
    """
    async with _open(reference, options or RegistryOptions()) as subject:
        return tuple([await _run(check, subject, reference) for check in (*_CHECKS, _check_content)])


@asynccontextmanager
async def _open(reference: str, options: RegistryOptions) -> AsyncGenerator[_Subject, None]:
    pinned = parse_pinned(reference)
    async with open_registry(pinned.registry, options) as client:
        repository = Repository(client, pinned.repository)
        image = await read_image(repository, pinned.digest, DEFAULT_PLATFORM)
        entries: list[tuple[Descriptor, TarEntry]] = []
        for layer in image.layers:
            if layer.media_type == LAYER_MEDIA_TYPE:
                entries += [(layer, entry) for entry in await _entries_or_none(repository, layer)]
        yield _Subject(repository, image, tuple(entries))


async def _entries_or_none(repository: Repository, layer: Descriptor) -> list[TarEntry]:
    """List a layer's entries; a layer that cannot be listed has none, which the checks then report."""
    window = Window(partial(repository.read_range, layer), layer.size_bytes)
    try:
        return await list_entries(window, layer.digest)
    except ServepathError:
        return []


async def _run(check: Callable[[_Subject], Awaitable[str]], subject: _Subject, reference: str) -> CheckResult:
    """Run one check: its docstring is what it expects, what it returns or raises is what was seen."""
    started = time.monotonic()
    try:
        verdict, seen = Verdict.PASS, await check(subject)
    except _SkippedError as reason:
        verdict, seen = Verdict.SKIP, str(reason)
    except (_FoundError, ServepathError) as error:
        verdict, seen = Verdict.FAIL, str(error)
    return CheckResult(
        name=check.__name__.removeprefix("_check_").replace("_", "-").join(("modelcar-", "")),
        subject=SUBJECT,
        verdict=verdict,
        expected=(check.__doc__ or "").rstrip("."),
        seen=seen,
        duration_s=time.monotonic() - started,
        next_command=f"skopeo inspect --raw docker://{reference}" if verdict is Verdict.FAIL else "",
    )


async def _check_manifest(subject: _Subject) -> str:
    """The manifest's bytes hash to its digest, and it lists layers."""
    if not subject.image.layers:
        raise _FoundError("no layers")
    await subject.source.read_manifest(subject.image.document.digest)
    return f"{len(subject.image.layers)} layers, {subject.image.document.digest}"


async def _check_config(subject: _Subject) -> str:
    """The config's bytes hash to its digest, it has no entrypoint, and its layers are the manifest's."""
    config = await _config(subject)
    if (config.get("config") or {}).get("Entrypoint"):
        raise _FoundError(
            f"Entrypoint {config['config']['Entrypoint']}: KServe's containers pass their command as args"
        )
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(diff_ids) != len(subject.image.layers):
        raise _FoundError(f"{len(diff_ids)} diff_ids for {len(subject.image.layers)} layers")
    for layer, diff_id in zip(subject.image.layers, diff_ids, strict=True):
        if layer.media_type == LAYER_MEDIA_TYPE and layer.digest != diff_id:
            raise _FoundError(f"the uncompressed layer {layer.digest} has diff_id {diff_id}")
    return f"{subject.image.config.digest}, no entrypoint, {len(diff_ids)} layers"


async def _check_blobs(subject: _Subject) -> str:
    """Every blob is there, with the size that the manifest says."""
    if not isinstance(subject.source, Repository):
        raise _SkippedError("not in a registry")
    repository = subject.source
    blobs = [subject.image.config, *subject.image.layers]
    found = await run_all([partial(repository.has_blob, blob) for blob in blobs], 4)
    missing = [blob.digest for blob, is_there in zip(blobs, found, strict=True) if not is_there]
    if missing:
        raise _FoundError(f"missing: {', '.join(missing)}")
    return f"{len(blobs)} blobs, {sum(blob.size_bytes for blob in blobs)} bytes"


async def _check_members(subject: _Subject) -> str:
    """The directory models/ holds files that any user can read."""
    _require_listable(subject)
    files = [entry for _, entry in subject.model_files]
    if not files:
        raise _FoundError("no file under models/")
    hidden = [entry.name for entry in files if entry.mode & _READABLE != _READABLE]
    hidden += [e.name for _, e in subject.entries if not e.is_file and e.name == "models" and e.mode & 0o555 != 0o555]  # noqa: PLR2004
    if hidden:
        raise _FoundError(f"not readable by any user: {', '.join(hidden[:5])}")
    return f"{len(files)} files, {sum(entry.size_bytes for entry in files)} bytes"


async def _check_safetensors(subject: _Subject) -> str:
    """Every safetensors header parses, fits its file, and the parameters are as annotated."""
    _require_listable(subject)
    files = [(layer, entry) for layer, entry in subject.model_files if entry.name.endswith(".safetensors")]
    if not files:
        raise _SkippedError("no safetensors files")
    headers = [await _read_header(subject.source, layer, entry) for layer, entry in files]
    parameters = sum(header.parameters for header in headers)
    annotated = (subject.image.document.json.get("annotations") or {}).get("io.servepath.model.parameters")
    if annotated not in {None, str(parameters)}:
        raise _FoundError(f"{parameters} parameters, annotated {annotated}")
    return f"{len(files)} files, {sum(len(header.tensors) for header in headers)} tensors, {parameters} parameters"


async def _check_content(subject: _Subject) -> str:
    """Every blob's bytes hash to its digest."""
    blobs = [subject.image.config, *subject.image.layers]
    digests = await run_all([partial(digest_of, subject.source.blob(blob)) for blob in blobs], 3)
    wrong = [blob.digest for blob, digest in zip(blobs, digests, strict=True) if digest != blob.digest]
    if wrong:
        raise _FoundError(f"other bytes: {', '.join(wrong)}")
    return f"{len(blobs)} blobs, {sum(blob.size_bytes for blob in blobs)} bytes read"


_CHECKS = (_check_manifest, _check_config, _check_blobs, _check_members, _check_safetensors)


def _require_listable(subject: _Subject) -> None:
    if not any(layer.media_type == LAYER_MEDIA_TYPE for layer in subject.image.layers):
        raise _SkippedError("the layers are compressed: a part of them cannot be read alone")


async def _config(subject: _Subject) -> dict[str, Any]:
    return load_object(await read_all(subject.source, subject.image.config), subject.image.config.digest)


async def _read_header(source: ImageSource, layer: Descriptor, entry: TarEntry) -> Header:
    async def read(start: int, length: int) -> bytes:
        return await source.read_range(layer, entry.data_offset + start, length)

    window = Window(read, entry.size_bytes)
    length = header_length(await window.at(0, LENGTH_BYTES), entry.size_bytes, entry.name)
    header = await window.at(LENGTH_BYTES, length)
    if len(header) != length:
        raise InputError("the registry sent less than asked for", where=entry.name, expected=f"{length} bytes")
    return parse_header(header, entry.size_bytes, entry.name)
