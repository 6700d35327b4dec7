"""Bytes that can be read again and again in bounded memory: what a blob is made of before it has a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from anyio import to_thread
from msgspec import Struct

from servepath.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator
    from pathlib import Path

Tap = Callable[[bytes], None]
CHUNK_BYTES = 1 << 20
"""How much is read, hashed and sent at a time."""


class Content(Protocol):
    """Something that `open` streams from its beginning each time it is called, the same bytes each time."""

    @property
    def size_bytes(self) -> int | None:
        """Number of bytes that `open` yields; None where only its end tells."""

    def open(self, tap: Tap) -> AsyncGenerator[bytes, None]:
        """Stream the bytes in chunks of at most a few MiB.

        Args:
            tap: called with each chunk before it is handed on, in the thread that read it: a hash's `update`.
        """


class FileRange(Struct, frozen=True):
    """A part of a file on disk.

    Attributes:
        path: the file.
        offset: where the part begins.
        size_bytes: how long it is.
        file_bytes: the whole file's size when the layers were planned; another size later means that it was edited.
    """

    path: Path
    offset: int
    size_bytes: int
    file_bytes: int


Piece = bytes | FileRange
"""What a content is made of: bytes in memory, or a part of a file that the kernel can move without us."""


@runtime_checkable
class PiecedContent(Protocol):
    """A content that is known by its pieces, which nobody has to read in order to send them."""

    @property
    def size_bytes(self) -> int:
        """Number of bytes of all pieces."""

    def pieces(self) -> Iterator[Piece]:
        """Give the pieces in order."""


class BytesContent(Struct, frozen=True):
    """Bytes in memory: configs and manifests."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """Length of the data."""
        return len(self.data)

    async def open(self, tap: Tap) -> AsyncGenerator[bytes, None]:
        """Yield the data as one chunk."""
        tap(self.data)
        yield self.data

    def pieces(self) -> Iterator[Piece]:
        """Give the data as one piece."""
        yield self.data


class FileContent(Struct, frozen=True):
    """A whole file on disk."""

    path: Path
    size_bytes: int

    def open(self, tap: Tap) -> AsyncGenerator[bytes, None]:
        """Stream the file, read in a worker thread."""
        return in_thread(self._read(), tap)

    def pieces(self) -> Iterator[Piece]:
        """Give the file as one piece."""
        yield FileRange(self.path, 0, self.size_bytes, self.size_bytes)

    def _read(self) -> Generator[bytes, None, None]:
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


async def in_thread(chunks: Generator[bytes, None, None], tap: Tap) -> AsyncGenerator[bytes, None]:
    """Run a blocking generator of non-empty chunks in a worker thread, one chunk at a time.

    Raises:
        InputError: the operating system refuses a read.
    """
    try:
        while chunk := await to_thread.run_sync(_next, chunks, tap):
            yield chunk
    finally:
        chunks.close()


def _next(chunks: Generator[bytes, None, None], tap: Tap) -> bytes:
    try:
        chunk = next(chunks, b"")
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=str(error.filename or "")) from error
    tap(chunk)
    return chunk


def changed(part: FileRange) -> InputError:
    """Say that a file is not what it was when the layers were planned."""
    return InputError(
        "the file changed while it was read",
        where=str(part.path),
        expected=f"{part.file_bytes} bytes, as when the layers were planned",
        next_command="run again when nothing writes to the model directory",
    )


async def digest_of(content: Content) -> str:
    """Read the content once and return its `sha256:…` digest."""
    sha256 = hashlib.sha256()
    async with aclosing(content.open(sha256.update)) as chunks:
        async for _ in chunks:
            pass
    return f"sha256:{sha256.hexdigest()}"


def digest_of_bytes(data: bytes) -> str:
    """Return the `sha256:…` digest of bytes in memory."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
