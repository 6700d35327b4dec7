"""What is moved: a content's bytes, from where they lie to a socket or a file, hashed beside it in another thread.

The kernel moves the parts of files (`sendfile`, `copy_file_range`), so that hashing is the only time that the bytes
pass through this process: 256 KiB at a time, which stay in the processor's cache.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import IO, TYPE_CHECKING, Protocol, Self

from anyio import from_thread, to_thread
from msgspec.structs import replace

from servepath.errors import InputError
from servepath.modelcar.content import PiecedContent, changed
from servepath.modelcar.push.pipe import open_pipe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from servepath.modelcar.content import Content, FileRange, Piece
    from servepath.modelcar.push.pipe import Pipe

WINDOW_BYTES = 8 << 20
"""How much is moved and hashed side by side, and how often progress is told."""
AHEAD_WINDOWS = 4
"""How many windows sending may be ahead of hashing: neither waits for the other's worst moments."""
BUFFER_BYTES = 256 << 10
HASHED_BYTES = 64 << 20
"""How much is hashed in one go where nothing is sent; between two of them the work can be cancelled."""


class Sink(Protocol):
    """Where bytes go; called in a worker thread."""

    def write(self, data: bytes) -> None:
        """Write all of the data."""

    def write_file(self, file: IO[bytes], offset: int, size_bytes: int) -> int:
        """Write a part of a file and return how much of it there was."""


class Body(Protocol):
    """One reading of a content."""

    @property
    def position(self) -> int:
        """How much was moved or skipped."""

    @property
    def digest(self) -> str:
        """Digest of what was moved and skipped; empty where nothing is hashed."""

    def move(self, size_bytes: int | None, sink: Sink | None, on_moved: Callable[[int], None]) -> None:
        """Move the next bytes into the sink, in a worker thread; without a sink they are skipped, but hashed.

        Args:
            size_bytes: how many; None for all that are left.
            sink: where to.
            on_moved: called in the worker thread with the position, every few MiB.

        Raises:
            InputError: the content cannot be read, or is not what it was.
            OSError: the sink failed.
        """


@asynccontextmanager
async def open_body(content: Content, *, is_hashed: bool) -> AsyncGenerator[Body, None]:
    """Open a content for one reading.

    Args:
        content: what to read.
        is_hashed: whether its digest is wanted.

    Raises:
        Exception: what reading the content raised.
    """
    if isinstance(content, PiecedContent):
        yield FileBody(content, is_hashed=is_hashed)
        return
    sha256 = hashlib.sha256() if is_hashed else None
    async with open_pipe(content, sha256.update if sha256 else _ignore) as pipe:
        yield StreamBody(pipe, sha256)


async def digest_of_pieces(content: PiecedContent, on_hashed: Callable[[int], None]) -> str:
    """Read the content once, a little at a time, and return its `sha256:…` digest.

    Args:
        content: what to read.
        on_hashed: called with the number of bytes that were read so far.

    Raises:
        InputError: a file cannot be read, or is not what it was.
    """
    body, left = FileBody(content, is_hashed=True), content.size_bytes
    while left:
        size_bytes = min(HASHED_BYTES, left)
        await to_thread.run_sync(body.move, size_bytes, None, _ignore_position)
        left -= size_bytes
        on_hashed(body.position)
    return body.digest


class FileBody:
    """A body of pieces.

    Args:
        content: what to move.
        is_hashed: whether its digest is wanted.
    """

    def __init__(self, content: PiecedContent, *, is_hashed: bool) -> None:
        self._size_bytes = content.size_bytes
        self._pieces: Iterator[Piece] = content.pieces()
        self._rest: Piece = b""
        self._sha256 = hashlib.sha256() if is_hashed else None
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self.position = 0

    @property
    def digest(self) -> str:
        """Digest of what was moved and skipped; empty where nothing is hashed."""
        return f"sha256:{self._sha256.hexdigest()}" if self._sha256 else ""

    def move(self, size_bytes: int | None, sink: Sink | None, on_moved: Callable[[int], None]) -> None:
        """Move the next bytes into the sink, see `Body.move`."""
        end = self._size_bytes if size_bytes is None else self.position + size_bytes
        with ExitStack() as stack:
            files = stack.enter_context(_Files())
            beside = stack.enter_context(ThreadPoolExecutor(1)) if self._sha256 and sink else None
            hashing: deque[Future[None]] = deque()
            while self.position < end:
                piece = self._take(min(WINDOW_BYTES, end - self.position))
                if not files.has(piece):
                    _finish(hashing, 0)  # of the file that is closed now
                file = files.open(piece)
                if beside is not None:
                    hashing.append(beside.submit(self._hash, piece, file))
                if sink is not None:
                    _write(piece, file, sink)
                else:
                    self._hash(piece, file)
                _finish(hashing, AHEAD_WINDOWS)
                self.position += _length(piece)
                on_moved(self.position)
            _finish(hashing, 0)

    def _take(self, limit: int) -> Piece:
        while not _length(self._rest):
            rest = next(self._pieces, None)
            if rest is None:
                raise InputError("a content is shorter than it said", expected=f"more than {self.position} bytes")
            self._rest = rest
        piece, self._rest = _split(self._rest, min(limit, _length(self._rest)))
        return piece

    def _hash(self, piece: Piece, file: IO[bytes] | None) -> None:
        if self._sha256 is None:
            return
        if isinstance(piece, bytes):
            self._sha256.update(piece)
        elif file is not None:
            for view in read_views(file, piece.offset, piece.size_bytes, self._buffer):
                self._sha256.update(view)


class StreamBody:
    """A body whose bytes come from the event loop: another registry's blob, a layer that is compressed on the way.

    Args:
        pipe: the content, read ahead.
        sha256: what the pipe hashes into; None for nothing.
    """

    def __init__(self, pipe: Pipe, sha256: hashlib._Hash | None) -> None:
        self._pipe = pipe
        self._sha256 = sha256
        self._rest = b""
        self.position = 0

    @property
    def digest(self) -> str:
        """Digest of all that was read: that of the content once all of it was moved."""
        return f"sha256:{self._sha256.hexdigest()}" if self._sha256 else ""

    def move(self, size_bytes: int | None, sink: Sink | None, on_moved: Callable[[int], None]) -> None:
        """Move the next bytes into the sink, see `Body.move`."""
        end = sys.maxsize if size_bytes is None else self.position + size_bytes
        while self.position < end:
            self._rest = self._rest or from_thread.run(self._pipe.next_chunk)
            if not self._rest and size_bytes is None:
                return
            if not self._rest:
                raise InputError("a content is shorter than it said", expected=f"more than {self.position} bytes")
            chunk, self._rest = self._rest[: end - self.position], self._rest[end - self.position :]
            if sink is not None:
                sink.write(chunk)
            self.position += len(chunk)
            on_moved(self.position)


class _Files:
    """The one file that is read at the moment."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def has(self, piece: Piece) -> bool:
        """Tell whether opening a piece closes no file."""
        return self._file is None or isinstance(piece, bytes) or piece.path == self._path

    def open(self, piece: Piece) -> IO[bytes] | None:
        """Open the file of a piece, or go on with it; None for bytes in memory."""
        if isinstance(piece, bytes):
            return None
        try:
            if self._file is None or piece.path != self._path:
                self.__exit__()
                self._file, self._path = piece.path.open("rb", buffering=0), piece.path
            size_bytes = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise _cannot_read(error, piece.path) from error
        if size_bytes != piece.file_bytes:
            raise changed(piece)
        return self._file


def read_views(file: IO[bytes], offset: int, size_bytes: int, buffer: memoryview) -> Generator[memoryview, None, None]:
    """Read a part of a file into one buffer again and again, without moving the file's position.

    Raises:
        InputError: the file cannot be read, or ends early.
    """
    end = offset + size_bytes
    while offset < end:
        try:
            count = _read_at(file, buffer[: end - offset], offset)
        except OSError as error:
            raise _cannot_read(error, file.name) from error
        if not count:
            raise InputError("the file changed while it was read", where=str(file.name), expected=f"{end} bytes")
        yield buffer[:count]
        offset += count


def _read_at(file: IO[bytes], view: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [view], offset)
    data = os.pread(file.fileno(), len(view), offset)  # macOS before 11
    view[: len(data)] = data
    return len(data)


def _write(piece: Piece, file: IO[bytes] | None, sink: Sink) -> None:
    if isinstance(piece, bytes):
        sink.write(piece)
    elif file is not None and sink.write_file(file, piece.offset, piece.size_bytes) != piece.size_bytes:
        raise changed(piece)


def _finish(work: deque[Future[None]], left: int) -> None:
    """Await work in order, until so much of it is left."""
    while len(work) > left:
        work.popleft().result()


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size_bytes


def _split(piece: Piece, size_bytes: int) -> tuple[Piece, Piece]:
    if isinstance(piece, bytes):
        return piece[:size_bytes], piece[size_bytes:]
    return replace(piece, size_bytes=size_bytes), _after(piece, size_bytes)


def _after(piece: FileRange, size_bytes: int) -> FileRange:
    return replace(piece, offset=piece.offset + size_bytes, size_bytes=piece.size_bytes - size_bytes)


def _cannot_read(error: OSError, path: object) -> InputError:
    return InputError(f"cannot read: {error.strerror}", where=str(path))


def _ignore(chunk: bytes) -> None:
    """Do nothing with a chunk."""


def _ignore_position(position: int) -> None:
    """Do nothing with a position."""
