"""An image whose manifests and configuration are read once: what a digest names never changes.

A no-change push then asks the base's registry for nothing, so it works with that registry out of reach.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import Struct

from servepath.modelcar.content import BytesContent, digest_of_bytes
from servepath.modelcar.registry.reference import is_digest
from servepath.modelcar.store import CONFIG, DOCKER_CONFIG, MAX_MANIFEST_BYTES, Document

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from servepath.modelcar.content import Content, Tap
    from servepath.modelcar.push.push_cache import PushCache
    from servepath.modelcar.store import Descriptor, ImageSource

_CONFIG_TYPES = frozenset({CONFIG, DOCKER_CONFIG})


class RememberedSource(Struct, frozen=True):
    """An `ImageSource` in front of another.

    Attributes:
        source: where what is not remembered is read.
        cache: where it is remembered.
    """

    source: ImageSource
    cache: PushCache

    async def read_manifest(self, reference: str) -> Document:
        """Read a manifest or index; one by tag is always read from the source, which may have moved the tag."""
        if is_digest(reference) and (known := self.cache.document(reference)) is not None:
            return known
        document = await self.source.read_manifest(reference)
        self.cache.remember_document(document)
        return document

    def blob(self, descriptor: Descriptor) -> Content:
        """Return a blob's content; of a configuration, from the cache."""
        content = self.source.blob(descriptor)
        if descriptor.media_type not in _CONFIG_TYPES or descriptor.size_bytes > MAX_MANIFEST_BYTES:
            return content
        known = self.cache.document(descriptor.digest)
        return _Remembering(content, descriptor, self.cache) if known is None else BytesContent(known.data)

    async def read_range(self, descriptor: Descriptor, start: int, length: int) -> bytes:
        """Read a part of a blob from the source."""
        return await self.source.read_range(descriptor, start, length)


class _Remembering(Struct, frozen=True):
    """A small content that is remembered when it has been read."""

    content: Content
    descriptor: Descriptor
    cache: PushCache

    @property
    def size_bytes(self) -> int | None:
        return self.content.size_bytes

    async def open(self, tap: Tap) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.content.open(tap)) as chunks:
            data = b"".join([chunk async for chunk in chunks])
        self.cache.remember_document(Document(self.descriptor.media_type, digest_of_bytes(data), data))
        yield data
