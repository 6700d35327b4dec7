"""Copy whole images by digest, streaming: from a layout or a registry to a registry, nothing kept on disk.

Everything under a digest is copied: an index with all its images, and what refers to them (SBOM, provenance,
signatures). A tag is put last, so whoever finds it finds all of that. A copy that was interrupted leaves whole blobs,
which the next one finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from servepath.errors import InputError
from servepath.modelcar.attach.referrers import list_referrers, write_referrer
from servepath.modelcar.image.oci import read_image
from servepath.modelcar.layout import Layout, parse_layout
from servepath.modelcar.model import Progress
from servepath.modelcar.push.place import ignore_progress
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.store import descriptor_of
from servepath.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servepath.modelcar.store import Descriptor, Document, ImageSource, ImageTarget


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """What was copied.

    Attributes:
        digest: the digest, the same in both places.
        reference: where it is now: `host/repository@sha256:…`.
        sent_bytes: the bytes of blobs that had to be sent; what was there or was mounted is not counted.
        referrers: digests of the manifests that refer to the image or to a part of it, and that are there now too.
    """

    digest: str
    reference: str
    sent_bytes: int
    referrers: tuple[str, ...] = ()


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
    name = f"oci:{layout}@{digest}" if digest else f"oci:{layout}"
    return (await copy(name, registry, repository, tag=tag, options=options, progress=progress)).reference


async def copy(  # noqa: PLR0913 - the last three have defaults that work
    reference: str,
    registry: str,
    repository: str,
    *,
    tag: str = "",
    options: RegistryOptions | None = None,
    progress: Callable[[Progress], None] = ignore_progress,
) -> CopiedImage:
    """Copy an image to a registry by digest, with what refers to it; the digest stays the same.

    Args:
        reference: `host/repository@sha256:…`, or `oci:DIRECTORY[@sha256:…]`.
        registry: `host[:port]` to copy to.
        repository: the repository there.
        tag: a tag to put on it too.
        options: how registries are talked to.
        progress: called as bytes are sent.

    Raises:
        InputError: the reference has no digest, or a manifest is malformed.
        RegistryError: a registry refused or failed.
    """
    settings = options or RegistryOptions()
    if reference.startswith("oci:"):
        layout, digest = parse_layout(reference)
        async with open_registry(registry, settings) as client:
            target = Repository(client, repository)
            return await copy_image(layout, target, digest, tag=tag, limit=settings.uploads, progress=progress)
    pinned = parse_pinned(reference)
    async with open_registry(pinned.registry, settings) as origin, open_registry(registry, settings) as client:
        source, target = Repository(origin, pinned.repository), Repository(client, repository)
        return await copy_image(source, target, pinned.digest, tag=tag, limit=settings.uploads, progress=progress)


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

    Into a repository what refers to them travels along; a layout gets the image alone.

    Raises:
        InputError: the image cannot be read.
        RegistryError: a registry refused or failed.
    """
    document = await source.read_manifest(reference)
    job = _Copy(source, target, limit, progress)
    await job.image(document)
    referrers = await job.referrers()
    if tag:
        await target.write_manifest(document, tag)
    return CopiedImage(document.digest, f"{target}@{document.digest}", job.sent_bytes, referrers)


class _Copy:
    """One copy: from where to where, and what was copied so far."""

    def __init__(
        self, source: ImageSource, target: ImageTarget, limit: int, progress: Callable[[Progress], None]
    ) -> None:
        self._source, self._target = source, target
        self._limit, self._progress = limit, progress
        self._copied: dict[str, None] = {}  # digests of manifests, in order
        self.sent_bytes = 0

    async def image(self, document: Document) -> None:
        """Copy what a manifest names, then the manifest under its digest."""
        if document.digest not in self._copied:
            await self._contents(document)
            await self._target.write_manifest(document, "")
            self._copied[document.digest] = None

    async def _contents(self, document: Document) -> None:
        if document.is_index:
            for child in _manifests_of(document):
                await self.image(await self._source.read_manifest(child.digest))
            return
        image = await read_image(self._source, document.digest)
        blobs = dict.fromkeys((*image.layers, image.config))  # a blob may appear twice
        self.sent_bytes += sum(await run_all([partial(self._blob, blob) for blob in blobs], self._limit))

    async def referrers(self) -> tuple[str, ...]:
        """Copy what refers to the copied manifests, and what refers to that, and return the digests."""
        source, target = self._source, self._target
        if not (isinstance(source, Repository | Layout) and isinstance(target, Repository)):
            return ()
        subjects, found = list(self._copied), dict[str, None]()
        for subject in subjects:  # grows while it is read: a signature may refer to an SBOM
            listed = [entry.descriptor.digest for entry in await list_referrers(source, subject)]
            there = {entry.descriptor.digest for entry in await list_referrers(target, subject)} if listed else set()
            for digest in listed:
                if digest not in there:
                    document = await source.read_manifest(digest)
                    await self._contents(document)
                    await write_referrer(target, document)
                if digest not in found:
                    found[digest] = None
                    subjects.append(digest)
        return tuple(found)

    async def _blob(self, blob: Descriptor) -> int:
        size_bytes = blob.size_bytes
        if await self._target.has_blob(blob) or await self._mounted(blob):
            self._progress(Progress(blob.digest, size_bytes, size_bytes))
            return 0
        await self._target.write_blob(
            self._source.blob(blob), blob.digest, lambda sent: self._progress(Progress(blob.digest, sent, size_bytes))
        )
        return size_bytes

    async def _mounted(self, blob: Descriptor) -> bool:
        """Mount the blob if both repositories are of one registry; tell whether that was possible."""
        source, target = self._source, self._target
        if not (isinstance(source, Repository) and isinstance(target, Repository)):
            return False
        if source.registry.host != target.registry.host or source.name == target.name:
            return False
        return await target.mount_blob(blob, source.name)


def _manifests_of(index: Document) -> list[Descriptor]:
    entries = index.json.get("manifests")
    if not isinstance(entries, list):
        raise InputError("the index lists no manifests", where=index.digest, expected="a list under `manifests`")
    return [descriptor_of(entry, index.digest) for entry in entries]
