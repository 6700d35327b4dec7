"""Deterministic tar layers, streamed: the same members give the same bytes on any machine and day.

Members are sorted, owned by 0:0, dated `mtime_s` (0 by default), with modes 0644 and 0755. Headers are ustar; a PAX
record is written only where ustar cannot carry a value (a name over 100 bytes that does not split, non-ASCII names,
files of 8 GiB and more).
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct

from servepath.modelcar.content import CHUNK_BYTES, FileRange, changed, in_thread
from servepath.modelcar.image.partition import cut_by_count

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping

    from servepath.modelcar.content import Piece, Tap

LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
OWN_LAYER_BYTES = 1 << 20
"""A file of at least this size gets a layer of its own. A tokenizer (7 MB) does: what is left together are kilobytes,
and an edited generation_config.json sends no more than them."""
MAX_MODEL_LAYERS = 64
"""Overlay file systems stack about 128 layers, the base's included; 64 leaves room and still pulls in parallel."""
BLOCK_BYTES = tarfile.BLOCKSIZE
END_BYTES = 2 * BLOCK_BYTES
GATHERED_BYTES = 64 << 10
"""Chunks below this size are gathered with what follows them."""


class VirtualFile(Struct, frozen=True):
    """A file that exists in the image alone: bytes and parts of files on disk, one after the other."""

    parts: tuple[bytes | FileRange, ...]

    @property
    def size_bytes(self) -> int:
        """Length of all parts."""
        return sum(len(part) if isinstance(part, bytes) else part.size_bytes for part in self.parts)


class Member(Struct, frozen=True):
    """One entry of a layer.

    Attributes:
        name: POSIX path in the image, relative, without `./`, such as `models/config.json`.
        path: the file to read as a whole; None for a virtual file, a directory or a symbolic link.
        size_bytes: size of the file, 0 for others.
        mode: permission bits.
        link: target of a symbolic link, empty for files and directories.
        virtual: what a file that is not on disk is made of.
    """

    name: str
    path: Path | None = None
    size_bytes: int = 0
    mode: int = 0o755
    link: str = ""
    virtual: VirtualFile | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.path is not None or self.virtual is not None

    @property
    def parts(self) -> tuple[bytes | FileRange, ...]:
        """What to read, in order: one part for a whole file, none for a directory or a link."""
        if self.virtual is not None:
            return self.virtual.parts
        return () if self.path is None else (FileRange(self.path, 0, self.size_bytes, self.size_bytes),)

    def read(self) -> Generator[bytes, None, None]:
        """Yield the file's bytes, reading in this thread; nothing for a directory or a link.

        Raises:
            InputError: a file is shorter or longer than when the layer was planned.
        """
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from _read_exactly(part)

    def header(self, mtime_s: int) -> bytes:
        """Return the tar header blocks, PAX records first where they are needed."""
        info = tarfile.TarInfo(self.name)
        info.mode, info.mtime, info.size = self.mode, mtime_s, self.size_bytes
        if self.link:
            info.type, info.linkname = tarfile.SYMTYPE, self.link
        elif not self.is_file:
            info.type = tarfile.DIRTYPE
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


class LayerPlan(Struct, frozen=True):
    """What a layer will hold: a `Content`, so it is streamed, never stored.

    Attributes:
        members: the entries, in the order in which they are written.
        mtime_s: modification time of every entry, in seconds since 1970.
    """

    members: tuple[Member, ...]
    mtime_s: int = 0

    @property
    def size_bytes(self) -> int:
        """Size of the tar stream, known without reading a file."""
        entries = (len(m.header(self.mtime_s)) + m.size_bytes + _padding(m.size_bytes) for m in self.members)
        return sum(entries) + END_BYTES

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files and links, directories left out."""
        return tuple(m.name for m in self.members if m.is_file or m.link)

    def open(self, tap: Tap) -> AsyncGenerator[bytes, None]:
        """Stream the tar; files are read in a worker thread.

        Raises:
            InputError: a file is shorter or longer than when the layer was planned.
        """
        return in_thread(self.read(), tap)

    def pieces(self) -> Iterator[Piece]:
        """Give the tar as headers and padding in memory, and the files between them as they lie on disk."""
        pending = bytearray()
        for member in self.members:
            pending += member.header(self.mtime_s)
            for part in member.parts:
                if isinstance(part, bytes):
                    pending += part
                elif part.size_bytes:
                    yield bytes(pending)
                    pending.clear()
                    yield part
            pending += bytes(_padding(member.size_bytes))
        yield bytes(pending + bytes(END_BYTES))

    def read(self) -> Generator[bytes, None, None]:
        """Yield the tar's bytes, reading in this thread.

        Raises:
            InputError: a file is shorter or longer than when the layer was planned.
        """
        pending = bytearray()  # headers and small files are gathered, so that a chunk is never a few bytes
        for member in self.members:
            pending += member.header(self.mtime_s)
            for chunk in member.read():
                if pending or len(chunk) < GATHERED_BYTES:
                    pending += chunk
                    if len(pending) >= CHUNK_BYTES:
                        yield bytes(pending)
                        pending.clear()
                else:
                    yield chunk
            pending += bytes(_padding(member.size_bytes))
        yield bytes(pending + bytes(END_BYTES))


def plan_layer(
    files: Mapping[str, Path | VirtualFile], *, mtime_s: int = 0, executables: Iterable[str] = ()
) -> LayerPlan:
    """Plan one layer of files and the directories above them.

    Args:
        files: path in the image (relative POSIX) -> file on disk, or what to make it of.
        mtime_s: modification time of every entry, in seconds since 1970.
        executables: those names that get mode 0755 instead of 0644.
    """
    runnable = frozenset(executables)
    members = [_member(name, content, 0o755 if name in runnable else 0o644) for name, content in files.items()]
    directories = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    members += [Member(name) for name in directories]
    return LayerPlan(tuple(sorted(members, key=lambda member: PurePosixPath(member.name).parts)), mtime_s)


def plan_layers(
    files: Mapping[str, Path | VirtualFile],
    *,
    mtime_s: int = 0,
    own_layer_bytes: int = OWN_LAYER_BYTES,
    max_layers: int = MAX_MODEL_LAYERS,
) -> tuple[LayerPlan, ...]:
    """Plan the layers of a model: big files alone, in order of name, then the small files together.

    The small files come last because a runtime's unpacked layers are keyed by those below them: a changed
    config then leaves the unpacked weights valid. Over `max_layers`, neighbours among the big files share layers, as
    evenly as they can.

    Args:
        files: path in the image (relative POSIX) -> file on disk, or what to make it of.
        mtime_s: modification time of every entry, in seconds since 1970.
        own_layer_bytes: files of at least this size get a layer of their own.
        max_layers: the most layers to plan, at least 2.
    """
    sizes = {name: _size_of(content) for name, content in files.items()}
    big = sorted(name for name in files if sizes[name] >= own_layer_bytes)
    groups = cut_by_count([sizes[name] for name in big], max_layers - 1)
    layers = [{big[position]: files[big[position]] for position in group} for group in groups]
    together = {name: content for name, content in files.items() if sizes[name] < own_layer_bytes}
    return tuple(plan_layer(layer, mtime_s=mtime_s) for layer in (*layers, together) if layer)


def _padding(size_bytes: int) -> int:
    return -size_bytes % BLOCK_BYTES


def _size_of(content: Path | VirtualFile) -> int:
    return content.size_bytes if isinstance(content, VirtualFile) else content.stat().st_size


def _member(name: str, content: Path | VirtualFile, mode: int) -> Member:
    if isinstance(content, VirtualFile):
        return Member(name, None, content.size_bytes, mode, virtual=content)
    return Member(name, content, _size_of(content), mode)


def _read_exactly(part: FileRange) -> Generator[bytes, None, None]:
    left = part.size_bytes
    with part.path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != part.file_bytes:
            raise changed(part)
        file.seek(part.offset)
        while left:
            chunk = file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise changed(part)
            left -= len(chunk)
            yield chunk
        if part.offset + part.size_bytes == part.file_bytes and file.read(1):
            raise changed(part)
