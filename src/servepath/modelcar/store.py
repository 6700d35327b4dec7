"""Where images are read from and written to: a repository of a registry, or an OCI layout on disk."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from servepath.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.modelcar.content import Content

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
ACCEPT_MANIFESTS = {"Accept": f"{MANIFEST}, {INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"}
"""Headers of a request for a manifest of any kind that is understood."""
INDEX_TYPES = frozenset({INDEX, DOCKER_LIST})
MAX_MANIFEST_BYTES = 4 << 20  # the limit that registries document


class Descriptor(Struct, frozen=True):
    """An OCI descriptor: what a blob or manifest is, how long it is, and its digest."""

    media_type: str
    digest: str
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as the image specification writes it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


class Document(Struct, frozen=True):
    """A manifest or index as stored: its exact bytes, which its digest is of."""

    media_type: str
    digest: str
    data: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The parsed document.

        Raises:
            InputError: not a JSON object.
        """
        return load_object(self.data, self.digest)

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests (one per platform) instead of layers."""
        return self.media_type in INDEX_TYPES


class WrittenBlob(Struct, frozen=True):
    """A blob that was written: its digest and size, and the bytes that had to be moved for it."""

    digest: str
    size_bytes: int
    sent_bytes: int


class Presence(Enum):
    """Where a blob was found."""

    HERE = "here"
    MOUNTED = "mounted"
    MISSING = "missing"


class ImageSource(Protocol):
    """Something that images are read from."""

    async def read_manifest(self, reference: str) -> Document:
        """Read a manifest or index by digest or tag; its digest is checked."""

    def blob(self, descriptor: Descriptor) -> Content:
        """Return a blob's content, to be streamed."""

    async def read_range(self, descriptor: Descriptor, start: int, length: int) -> bytes:
        """Read a part of a blob."""


class ImageTarget(Protocol):
    """Something that images are written to."""

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there."""

    async def obtain_blob(self, descriptor: Descriptor) -> Presence:
        """Tell whether the blob is there, after trying to get it without moving its bytes."""

    async def write_blob(self, content: Content, digest: str, on_sent: Callable[[int], None]) -> WrittenBlob:
        """Write a blob; an interrupted one is gone on with where that is possible.

        Args:
            content: what to write.
            digest: its digest if it is known, else empty: it is then hashed while it is written.
            on_sent: called with the number of bytes of this blob written so far.
        """

    async def write_manifest(self, document: Document, tag: str) -> None:
        """Write a manifest or index, under a tag too if one is given."""


def load_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        InputError: not a JSON object.
    """
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {str(error)[:200]}", where=where, expected="a JSON object") from error
    if not isinstance(loaded, dict):
        raise InputError(f"a JSON {type(loaded).__name__}", where=where, expected="a JSON object")
    return loaded


def descriptor_of(entry: Any, where: str) -> Descriptor:
    """Read a descriptor from a parsed manifest.

    Raises:
        InputError: not a descriptor.
    """
    match entry:
        case {"mediaType": str(media_type), "digest": str(digest), "size": int(size)} if size >= 0:
            return Descriptor(media_type, digest, size)
    raise InputError(f"not a descriptor: {str(entry)[:120]}", where=where, expected="mediaType, digest and size")


def canonical_json(value: Any) -> bytes:
    """Return the one form in which this package writes JSON whose digest counts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
