"""The stage `copy`: the digest goes from registry to registry, with all that speaks of it, and is verified there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from servepath.errors import CheckFailedError, RegistryError
from servepath.evidence import CheckResult, Verdict
from servepath.modelcar.attach.referrers import list_referrers
from servepath.modelcar.copy import copy, copy_image
from servepath.modelcar.image.oci import read_image
from servepath.modelcar.push.place import ignore_progress
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.store import ACCEPT_MANIFESTS, descriptor_of
from servepath.modelcar.verify import verify
from servepath.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from servepath.modelcar.model import Progress
    from servepath.modelcar.store import Descriptor

COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
"""cosign keeps what it knows of an image under the tags `sha256-<hex>` with these endings."""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What a copy would do.

    Attributes:
        source: `host/repository@sha256:…`.
        target: the same digest in the cluster's registry.
        size_bytes: all blobs of the image.
        missing_bytes: those that the target lacks.
        referrers: how many manifests refer to it at the source.
        tags: cosign's tags that travel along.
    """

    source: str
    target: str
    size_bytes: int
    missing_bytes: int
    referrers: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied: where it is now, the bytes sent, what travelled along, and the checks of it in its new place."""

    reference: str
    sent_bytes: int
    referrers: tuple[str, ...]
    tags: tuple[str, ...]
    checks: tuple[CheckResult, ...]


async def plan_copy(source: str, registry: str, repository: str, options: RegistryOptions | None = None) -> CopyPlan:
    """Look at both registries, and change neither.

    Raises:
        InputError: the reference has no digest, or a manifest is malformed.
        RegistryError: a registry refuses or fails, or the source does not have the image.
    """
    settings = options or RegistryOptions()
    pinned = parse_pinned(source)
    async with open_registry(pinned.registry, settings) as origin, open_registry(registry, settings) as client:
        here, there = Repository(origin, pinned.repository), Repository(client, repository)
        blobs = [blob async for blob in _blobs(here, pinned.digest)]
        present = await run_all([partial(there.has_blob, blob) for blob in blobs], settings.uploads)
        return CopyPlan(
            source=source,
            target=f"{there}@{pinned.digest}",
            size_bytes=sum(blob.size_bytes for blob in blobs),
            missing_bytes=sum(blob.size_bytes for blob, found in zip(blobs, present, strict=True) if not found),
            referrers=len(await list_referrers(here, pinned.digest)),
            tags=await _cosign_tags(here, pinned.digest),
        )


async def copy_modelcar(
    source: str,
    registry: str,
    repository: str,
    options: RegistryOptions | None = None,
    progress: Callable[[Progress], None] = ignore_progress,
) -> Copied:
    """Copy an image under its digest, with its referrers and cosign's tags, and verify it where it is now.

    Raises:
        InputError: the reference has no digest, or a manifest is malformed.
        RegistryError: a registry refuses or fails, or the digest afterwards is another.
        CheckFailedError: what lies there is not whole.
    """
    settings = options or RegistryOptions()
    pinned = parse_pinned(source)
    copied = await copy(source, registry, repository, options=settings, progress=progress)
    if copied.digest != pinned.digest:
        raise RegistryError(f"the digest is {copied.digest}", where=copied.reference, expected=pinned.digest)
    async with open_registry(pinned.registry, settings) as origin, open_registry(registry, settings) as client:
        here, there = Repository(origin, pinned.repository), Repository(client, repository)
        tags = await _cosign_tags(here, pinned.digest)
        for tag in tags:
            await copy_image(here, there, tag, tag=tag, limit=settings.uploads)
    checks = await verify(copied.reference, options=settings)
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    if failed:
        raise CheckFailedError(
            f"{failed[0].name}: {failed[0].seen}",
            where=copied.reference,
            expected=failed[0].expected,
            next_command=failed[0].next_command or f"servepath verify --content {copied.reference}",
        )
    return Copied(copied.reference, copied.sent_bytes, copied.referrers, tags, checks)


async def has_tag(repository: Repository, tag: str) -> bool:
    """Tell whether a repository has a tag.

    Raises:
        RegistryError: the registry refuses or fails.
    """
    path = repository.path("manifests", tag)
    response = await repository.registry.request("HEAD", path, headers=ACCEPT_MANIFESTS)
    return repository.registry.expect(response, "looking for a tag", {200, 404}).status == HTTPStatus.OK


async def _cosign_tags(repository: Repository, digest: str) -> tuple[str, ...]:
    names = [f"{digest.replace(':', '-', 1)}{suffix}" for suffix in COSIGN_SUFFIXES]
    return tuple([name for name in names if await has_tag(repository, name)])


async def _blobs(repository: Repository, digest: str) -> AsyncIterator[Descriptor]:
    """Give every blob under a digest, each once."""
    document = await repository.read_manifest(digest)
    entries = document.json.get("manifests") or () if document.is_index else (None,)
    seen: set[str] = set()
    for entry in entries:
        image = await read_image(repository, descriptor_of(entry, digest).digest if entry else digest)
        for blob in (*image.layers, image.config):
            if blob.digest not in seen:
                seen.add(blob.digest)
                yield blob
