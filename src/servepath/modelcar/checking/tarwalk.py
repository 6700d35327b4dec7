"""Walk a tar's entries by reading parts of it, in order: from a registry by ranges, or from a stream."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from servepath.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

WINDOW_BYTES = 64 << 10
MAX_RECORD_BYTES = 1 << 20
MAX_SIZE_BYTES = 1 << 63
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry: its name, permission bits, what it is, where its data lies, and a link's target."""

    name: str
    mode: int
    is_file: bool
    data_offset: int
    size_bytes: int
    link: str = ""
    is_directory: bool = False
    is_hard_link: bool = False


class Access(Protocol):
    """Access to bytes; a walk reads them in order and never goes back."""

    async def at(self, start: int, length: int) -> bytes:
        """Return the bytes at `start`, fewer at the end."""


class Window:
    """Random access to something of a known size through reads of at least 64 KiB.

    Args:
        read: reads `length` bytes at `start`.
        size_bytes: how much there is.
    """

    def __init__(self, read: Callable[[int, int], Awaitable[bytes]], size_bytes: int) -> None:
        self._read = read
        self._start, self._data = 0, b""
        self.size_bytes = size_bytes

    async def at(self, start: int, length: int) -> bytes:
        """Return the bytes at `start`, fewer at the end."""
        length = min(length, self.size_bytes - start)
        if length <= 0:
            return b""
        if not (self._start <= start and start + length <= self._start + len(self._data)):
            self._start = start
            self._data = await self._read(start, min(max(length, WINDOW_BYTES), self.size_bytes - start))
        return self._data[start - self._start : start - self._start + length]


class Stream:
    """Access to a stream of chunks, forward only."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._start = 0

    async def at(self, start: int, length: int) -> bytes:
        """Return the bytes at `start`, fewer at the end; what lies before is forgotten."""
        if start < self._start:
            raise ValueError("a stream is read forward only")
        while start + length > self._start + len(self._rest):
            self._forget(start)
            chunk = await anext(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        self._forget(start)
        return self._rest[:length]

    def _forget(self, start: int) -> None:
        gone = min(start - self._start, len(self._rest))
        self._rest, self._start = self._rest[gone:], self._start + gone


async def walk(access: Access, where: str) -> AsyncGenerator[TarEntry, None]:
    """Yield the entries of a tar; between two of them the data of the first can be read.

    Args:
        access: access to the tar.
        where: how to call it in an error.

    Raises:
        InputError: not a tar, or one that is cut off.
    """
    extended: dict[str, str] = {}
    offset = 0
    while True:
        block = await access.at(offset, _BLOCK)
        if len(block) == _BLOCK and not block.strip(b"\0"):
            return
        place = f"{where}, offset {offset}"
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise InputError(f"not a tar: {error}", where=place, expected="a tar header") from error
        data_offset = offset + _BLOCK
        size_bytes = _size_of(extended.get("size", info.size), place)
        offset = data_offset + size_bytes + -size_bytes % _BLOCK
        if info.type in {tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME}:
            record = await access.at(data_offset, min(size_bytes, MAX_RECORD_BYTES))
            name = record.rstrip(b"\0").decode("utf-8", "surrogateescape")
            extended |= _pax(record) if info.type == tarfile.XHDTYPE else {"path": name}
            continue
        name = extended.get("path", info.name).rstrip("/")
        if info.type != tarfile.XGLTYPE:
            link = extended.get("linkpath", info.linkname)
            kinds = (info.isdir(), info.islnk())
            yield TarEntry(name, info.mode, info.isreg(), data_offset, size_bytes, link, *kinds)
        extended = {}


def _size_of(value: int | str, place: str) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(MAX_SIZE_BYTES)):
        raise InputError(f"not a size: {text[:40]!r}", where=place, expected="a number of bytes")
    return int(text)


def _pax(record: bytes) -> dict[str, str]:
    """Parse PAX records: `LENGTH KEY=VALUE` and a newline, where LENGTH counts the whole record."""
    values: dict[str, str] = {}
    while record:
        digits, _, _ = record.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) <= len(str(MAX_RECORD_BYTES)) else 0
        if not len(digits) < length <= len(record):
            raise InputError("a malformed PAX record", where=repr(record[:60]), expected="LENGTH KEY=VALUE")
        key, _, value = record[len(digits) + 1 : length - 1].partition(b"=")
        values[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        record = record[length:]
    return values
