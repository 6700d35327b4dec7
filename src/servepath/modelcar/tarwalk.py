"""List a tar's entries by reading parts of it: headers only, so a layer in a registry is listed without its data."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WINDOW_BYTES = 64 << 10
MAX_RECORD_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry: its name, permission bits, whether it is a regular file, and where its data lies."""

    name: str
    mode: int
    is_file: bool
    data_offset: int
    size_bytes: int


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


async def list_entries(window: Window, where: str) -> list[TarEntry]:
    """List the entries of a tar.

    Args:
        window: access to the tar.
        where: how to call it in an error.

    Raises:
        InputError: not a tar, or one that is cut off.
    """
    entries: list[TarEntry] = []
    extended: dict[str, str] = {}
    offset = 0
    while True:
        block = await window.at(offset, _BLOCK)
        if len(block) == _BLOCK and not block.strip(b"\0"):
            return entries
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise InputError(
                f"not a tar: {error}", where=f"{where}, offset {offset}", expected="a tar header"
            ) from error
        data_offset = offset + _BLOCK
        size_bytes = int(extended.get("size", info.size))
        offset = data_offset + size_bytes + -size_bytes % _BLOCK
        if info.type in {tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME}:
            record = await window.at(data_offset, min(size_bytes, MAX_RECORD_BYTES))
            extended |= _pax(record) if info.type == tarfile.XHDTYPE else {"path": record.rstrip(b"\0").decode()}
            continue
        name = extended.get("path", info.name).rstrip("/")
        if info.type != tarfile.XGLTYPE:
            entries.append(TarEntry(name, info.mode, info.isreg(), data_offset, size_bytes))
        extended = {}


def _pax(record: bytes) -> dict[str, str]:
    """Parse PAX records: `LENGTH KEY=VALUE` and a newline, where LENGTH counts the whole record."""
    values: dict[str, str] = {}
    while record:
        digits, _, _ = record.partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        if not len(digits) < length <= len(record):
            raise InputError("a malformed PAX record", where=repr(record[:60]), expected="LENGTH KEY=VALUE")
        key, _, value = record[len(digits) + 1 : length - 1].partition(b"=")
        values[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        record = record[length:]
    return values
