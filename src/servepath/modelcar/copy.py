"""Copy whole images by digest, streaming: from a layout or a registry to a registry, nothing kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from servepath.modelcar.image import read_image
from servepath.modelcar.layout import Layout
from servepath.modelcar.model import Progress
from servepath.modelcar.parallel import run_all
from servepath.modelcar.reference import parse_pinned
from servepath.modelcar.registry import RegistryOptions, open_registry
from servepath.modelcar.repository import Repository
from servepath.modelcar.write import copy_blob, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servepath.modelcar.store import Descriptor, ImageSource, ImageTarget


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """The digest that was copied, and the bytes of blobs that had to be sent."""

    digest: str
    sent_bytes: int


async def push_layout(  # noqa: PLR0913 - the last four have defaults that work
    layout: Path,
    registry: str,
    repository: str,
    *,
    digest: str = "",
    tag: str = "",
    options: RegistryOptions | None = None,
    progress: Callable[[Progress], None] = ignore_progress,
) -> str:
    """Push an image of an OCI layout and return its reference, `host/repository@sha256:…`.

    Args:
        layout: the layout's directory.
        registry: `host[:port]`.
        repository: the repository there.
        digest: which image; may be left out when the layout holds one.
        tag: a tag to put on it too.
        options: how registries are talked to.
        progress: called as bytes are sent.

    Raises:
        InputError: not a layout, or it does not hold the image.
        RegistryError: the registry refused or failed.
    """
    settings = options or RegistryOptions()
    source = Layout(layout)
    async with open_registry(registry, settings) as client:
        target = Repository(client, repository)
        copied = await copy_image(
            source, target, digest or source.only_digest(), tag=tag, limit=settings.uploads, progress=progress
        )
    return f"{target}@{copied.digest}"


async def copy(  # noqa: PLR0913 - the last three have defaults that work
    reference: str,
    registry: str,
    repository: str,
    *,
    tag: str = "",
    options: RegistryOptions | None = None,
    progress: Callable[[Progress], None] = ignore_progress,
) -> str:
    """Copy an image from registry to registry by digest and return its new reference, with the same digest.

    Args:
        reference: `host/repository@sha256:…`.
        registry: `host[:port]` to copy to.
        repository: the repository there.
        tag: a tag to put on it too.
        options: how registries are talked to.
        progress: called as bytes are sent.

    Raises:
        InputError: the reference has no digest.
        RegistryError: a registry refused or failed.
    """
    settings = options or RegistryOptions()
    pinned = parse_pinned(reference)
    async with open_registry(pinned.registry, settings) as origin, open_registry(registry, settings) as client:
        source, target = Repository(origin, pinned.repository), Repository(client, repository)
        copied = await copy_image(source, target, pinned.digest, tag=tag, limit=settings.uploads, progress=progress)
    return f"{target}@{copied.digest}"


async def copy_image(  # noqa: PLR0913 - the last three have defaults that work
    source: ImageSource,
    target: ImageTarget,
    reference: str,
    *,
    tag: str = "",
    limit: int = 3,
    progress: Callable[[Progress], None] = ignore_progress,
) -> CopiedImage:
    """Copy an image, or an index with all its images; the bytes of every manifest stay as they are.

    Raises:
        InputError: the image cannot be read.
        RegistryError: a registry refused or failed.
    """
    document = await source.read_manifest(reference)
    sent_bytes = 0
    if document.is_index:
        for entry in document.json.get("manifests") or []:
            copied = await copy_image(source, target, str(entry["digest"]), limit=limit, progress=progress)
            sent_bytes += copied.sent_bytes
    else:
        image = await read_image(source, document.digest)
        blobs = dict.fromkeys((*image.layers, image.config))  # a blob may appear twice
        jobs = [partial(_copy_one, source, target, blob, progress) for blob in blobs]
        sent_bytes = sum(await run_all(jobs, limit))
    await target.write_manifest(document, tag)
    return CopiedImage(document.digest, sent_bytes)


async def _copy_one(
    source: ImageSource, target: ImageTarget, blob: Descriptor, progress: Callable[[Progress], None]
) -> int:
    if await _mounted(source, target, blob):
        progress(Progress(blob.digest, blob.size_bytes, blob.size_bytes))
        return 0
    return await copy_blob(target, source.blob(blob), blob, blob.digest, progress)


async def _mounted(source: ImageSource, target: ImageTarget, blob: Descriptor) -> bool:
    """Mount the blob if both repositories are of one registry; tell whether that was possible."""
    if not (isinstance(source, Repository) and isinstance(target, Repository)):
        return False
    if source.registry.host != target.registry.host or source.name == target.name:
        return False
    return await target.mount_blob(blob, source.name)
