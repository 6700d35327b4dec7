"""Verify a modelcar where it lies in a registry: without downloading the weights, or by reading every byte."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from servepath.errors import ServepathError
from servepath.evidence import CheckResult, Verdict
from servepath.modelcar.attach.referrers import list_referrers
from servepath.modelcar.checking.attachment_checks import ATTACHMENT_CHECKS, Attachments
from servepath.modelcar.checking.examine import examine_parts, examine_whole
from servepath.modelcar.checking.image_checks import (
    PART_CHECKS,
    WHOLE_CHECKS,
    Examined,
    FoundError,
    SkippedError,
    diff_ids_of,
)
from servepath.modelcar.image.oci import read_all, read_image
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.store import descriptor_of, load_object
from servepath.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from servepath.modelcar.checking.examine import LayerContents
    from servepath.modelcar.image.oci import Image
    from servepath.modelcar.store import Descriptor, Document, ImageSource

SUBJECT = "modelcar"
_NOT_AN_IMAGE = "unknown"  # the platform of attestations that builders put into an index
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Listed:
    """One image of an index: its platform, and what it is or why it cannot be read."""

    platform: str
    descriptor: Descriptor
    image: Image | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Index:
    """An index and its images; a reference to one image makes an index of none."""

    document: Document
    images: tuple[_Listed, ...]


async def verify(
    reference: str, *, required: frozenset[str] = frozenset(), options: RegistryOptions | None = None
) -> tuple[CheckResult, ...]:
    """Check a modelcar in its registry: manifests, configs, blobs, members, safetensors headers, what refers to it.

    The digests of manifests and configs are recomputed; layers are looked up, and their tar and safetensors headers are
    read by Range requests. What cannot be read so is skipped, with the reason. `verify_content` reads every byte.

    Args:
        reference: `host/repository@sha256:…`, of an image or of an index over several platforms.
        required: artifact types (`referrers.SBOM`, `referrers.PROVENANCE`) that must refer to it; others may.
        options: how registries are talked to.

    Raises:
        InputError: the reference has no digest.
        RegistryError: the manifest cannot be read at all.
    """
    return await _verify(reference, required, options or RegistryOptions(), examine_parts, PART_CHECKS)


async def verify_content(
    reference: str, *, required: frozenset[str] = frozenset(), options: RegistryOptions | None = None
) -> tuple[CheckResult, ...]:
    """Check as `verify` does, but stream every layer, storing nothing, and recompute its digest and its diff_id.

    Raises:
        InputError: the reference has no digest.
        RegistryError: the manifest cannot be read at all.
    """
    return await _verify(reference, required, options or RegistryOptions(), examine_whole, WHOLE_CHECKS)


async def _verify(
    reference: str,
    required: frozenset[str],
    options: RegistryOptions,
    examine: Callable[[ImageSource, Descriptor], Awaitable[LayerContents]],
    checks: Sequence[Callable[[Examined], Awaitable[str]]],
) -> tuple[CheckResult, ...]:
    results: list[CheckResult] = []
    async with _open(reference, options) as (repository, index, images):
        if index.images:
            results.append(await _run(_check_index, index, SUBJECT, reference))
        layers = list(dict.fromkeys(layer for image, _ in images for layer in image.layers))  # platforms share them
        jobs = [partial(examine, repository, layer) for layer in layers]
        contents = dict(zip(layers, await run_all(jobs, options.uploads), strict=True))
        for image, platform in images:
            examined = Examined(repository, image, platform, tuple(contents[layer] for layer in image.layers))
            results += [await _run(check, examined, platform or SUBJECT, reference) for check in checks]
        attachments = Attachments(
            repository,
            index.document,
            frozenset([diff_id for image, _ in images for diff_id in await _diff_ids(repository, image)]),
            await list_referrers(repository, index.document.digest),
            required,
        )
        results += [await _run(check, attachments, SUBJECT, reference) for check in ATTACHMENT_CHECKS]
    return tuple(results)


@asynccontextmanager
async def _open(
    reference: str, options: RegistryOptions
) -> AsyncGenerator[tuple[Repository, _Index, list[tuple[Image, str]]], None]:
    """Open the repository and read the manifests: the index, if it is one, and each image with its platform."""
    pinned = parse_pinned(reference)
    async with open_registry(pinned.registry, options) as client:
        repository = Repository(client, pinned.repository)
        document = await repository.read_manifest(pinned.digest)
        if not document.is_index:
            yield repository, _Index(document, ()), [(await read_image(repository, document.digest), "")]
            return
        entries = document.json.get("manifests")
        listed = [await _list(repository, entry, document) for entry in (entries if isinstance(entries, list) else [])]
        index = _Index(document, tuple(entry for entry in listed if _NOT_AN_IMAGE not in entry.platform))
        yield repository, index, [(entry.image, entry.platform) for entry in index.images if entry.image is not None]


async def _list(repository: Repository, entry: object, index: Document) -> _Listed:
    descriptor = descriptor_of(entry, index.digest)
    where = entry.get("platform") if isinstance(entry, dict) else None
    platform = f"{where.get('os')}/{where.get('architecture')}" if isinstance(where, dict) else ""
    try:
        image = await read_image(repository, descriptor.digest)
    except ServepathError as error:
        return _Listed(platform, descriptor, None, str(error))
    return _Listed(platform, descriptor, image)


async def _check_index(index: _Index) -> str:
    """Every image of the index is there under its digest and size, each for a platform of its own."""
    problems = [f"{entry.platform}: {entry.problem}" for entry in index.images if entry.problem]
    sizes = [(e, len(e.image.document.data)) for e in index.images if e.image is not None]
    problems += [
        f"{e.platform}: {size} bytes, not as the index says" for e, size in sizes if size != e.descriptor.size_bytes
    ]
    platforms = [entry.platform for entry in index.images]
    problems += [f"{platform}: twice" for platform in sorted(set(platforms)) if platforms.count(platform) > 1]
    if problems:
        raise FoundError("; ".join(problems))
    return ", ".join(platforms)


async def _diff_ids(repository: Repository, image: Image) -> list[str]:
    try:
        config = load_object(await read_all(repository, image.config), image.config.digest)
    except ServepathError:
        return []  # the image's own check says so
    return [str(diff_id) for diff_id in diff_ids_of(config)]


async def _run(check: Callable[[T], Awaitable[str]], what: T, subject: str, reference: str) -> CheckResult:
    """Run one check: its docstring is what it expects, what it returns or raises is what was seen."""
    started = time.monotonic()
    try:
        verdict, seen = Verdict.PASS, await check(what)
    except SkippedError as reason:
        verdict, seen = Verdict.SKIP, str(reason)
    except (FoundError, ServepathError) as error:
        verdict, seen = Verdict.FAIL, str(error)
    name = getattr(check, "__name__", "").removeprefix("_").removeprefix("check_").replace("_", "-")
    return CheckResult(
        name=f"{SUBJECT}-{name}",
        subject=subject,
        verdict=verdict,
        expected=(check.__doc__ or "").rstrip("."),
        seen=seen,
        duration_s=time.monotonic() - started,
        next_command=f"skopeo inspect --raw docker://{reference}" if verdict is Verdict.FAIL else "",
    )
