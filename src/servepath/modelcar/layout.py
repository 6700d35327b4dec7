"""OCI image layouts on disk: `oci-layout`, `index.json` and `blobs/sha256/…`."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from anyio import from_thread, to_thread

from servepath.errors import InputError
from servepath.modelcar.content import Content, FileContent, digest_of_bytes
from servepath.modelcar.push.body import BUFFER_BYTES, open_body, read_views
from servepath.modelcar.registry.reference import is_digest
from servepath.modelcar.store import (
    MANIFEST,
    Descriptor,
    Document,
    Presence,
    WrittenBlob,
    canonical_json,
    load_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable

REF_NAME = "org.opencontainers.image.ref.name"
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})
_LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class Layout:
    """An OCI layout directory: an `ImageSource` and an `ImageTarget`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __str__(self) -> str:
        return f"oci:{self.directory}"

    def entries(self) -> list[dict[str, Any]]:
        """Return the descriptors in `index.json`.

        Raises:
            InputError: not an OCI layout.
        """
        path = self.directory / "index.json"
        if not path.is_file():
            raise InputError(
                "not an OCI layout",
                where=str(self.directory),
                expected="a directory with index.json and blobs/",
                next_command=f"ls {self.directory}",
            )
        manifests = load_object(path.read_bytes(), str(path)).get("manifests")
        if not isinstance(manifests, list) or not all(isinstance(entry, dict) for entry in manifests):
            raise InputError("index.json lists no manifests", where=str(path), expected="a list under `manifests`")
        return manifests

    def only_digest(self) -> str:
        """Return the digest of the one image in the layout; what refers to it is not counted.

        Raises:
            InputError: not a layout, or it holds none or several.
        """
        digests = sorted({str(entry.get("digest")) for entry in self.entries() if "artifactType" not in entry})
        if len(digests) != 1:
            raise InputError(
                f"the layout holds {len(digests)} images",
                where=str(self.directory),
                expected="one image, or the digest of one of them: " + ", ".join(digests),
            )
        return digests[0]

    async def read_manifest(self, reference: str) -> Document:
        """Read a manifest or index by digest, or by the name it has in the layout."""
        digest, media_type = self._find(reference)
        data = await to_thread.run_sync(self._blob_path(digest).read_bytes)
        if digest_of_bytes(data) != digest:
            raise InputError("a blob's bytes are not those of its name", where=f"{self}@{digest}", expected=digest)
        return Document(load_object(data, digest).get("mediaType") or media_type, digest, data)

    def blob(self, descriptor: Descriptor) -> Content:
        """Return a blob's content.

        Raises:
            InputError: the blob is missing or has another size.
        """
        path = self._blob_path(descriptor.digest)
        seen = path.stat().st_size if path.is_file() else None
        if seen != descriptor.size_bytes:
            raise InputError(
                "a blob is missing" if seen is None else f"a blob has {seen} bytes",
                where=str(path),
                expected=f"{descriptor.size_bytes} bytes",
            )
        return FileContent(path, descriptor.size_bytes)

    async def read_range(self, descriptor: Descriptor, start: int, length: int) -> bytes:
        """Read a part of a blob."""

        def read() -> bytes:
            with self._blob_path(descriptor.digest).open("rb") as file:
                file.seek(start)
                return file.read(length)

        return await to_thread.run_sync(read)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there, with its size: blobs appear under their name only when complete."""
        path = self._blob_path(descriptor.digest)
        return path.is_file() and path.stat().st_size == descriptor.size_bytes

    async def obtain_blob(self, descriptor: Descriptor) -> Presence:
        """Tell whether the blob is there."""
        return Presence.HERE if await self.has_blob(descriptor) else Presence.MISSING

    async def write_blob(self, content: Content, digest: str, on_sent: Callable[[int], None]) -> WrittenBlob:
        """Write a blob beside its place, hashed while it is written, then rename it to its digest.

        Raises:
            InputError: the content is not what `digest` says, or the disk is full.
        """
        blobs = self.directory / "blobs" / "sha256"
        try:
            blobs.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=blobs, prefix=".partial-")
        except OSError as error:
            raise _cannot_write(blobs, error) from error
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                written = await _copy(content, file, on_sent)
            if digest and written.digest != digest:
                raise InputError("a blob's bytes are not those of its digest", where=written.digest, expected=digest)
            await to_thread.run_sync(_publish, partial, self._blob_path(written.digest))
        except OSError as error:
            raise _cannot_write(blobs, error) from error
        finally:
            _remove(partial)
        return written

    async def write_manifest(self, document: Document, tag: str) -> None:
        """Write a manifest and list it in `index.json`.

        An entry of the same name gives way to it, and an index stands for the manifests below it.
        """
        entry: dict[str, Any] = Descriptor(document.media_type, document.digest, len(document.data)).to_json()
        if tag:
            entry["annotations"] = {REF_NAME: tag}
        below = {entry["digest"] for entry in document.json["manifests"]} if document.is_index else set()
        others = [
            other
            for other in self._old_entries()
            if not (_same(other, document.digest, tag) or (other.get("digest") in below and "annotations" not in other))
        ]
        self._write(document, [*others, entry])

    async def referrers(self) -> list[Document]:
        """Read the manifests that refer to others."""
        digests = [str(entry.get("digest")) for entry in self._old_entries() if "artifactType" in entry]
        return [await self.read_manifest(digest) for digest in digests]

    async def write_referrer(self, document: Document, entry: dict[str, Any]) -> None:
        """Write a manifest that refers to another, and list it in `index.json`, where tools look for it.

        Args:
            document: the manifest.
            entry: its descriptor, with `artifactType`.
        """
        others = [other for other in self._old_entries() if other.get("digest") != document.digest]
        self._write(document, [*others, entry])

    def _write(self, document: Document, entries: list[dict[str, Any]]) -> None:
        blobs = self.directory / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        partial = blobs / f".partial-{document.digest}"
        partial.write_bytes(document.data)
        partial.rename(self._blob_path(document.digest))
        index = {"schemaVersion": 2, "manifests": sorted(entries, key=json.dumps)}
        (self.directory / "oci-layout").write_bytes(_LAYOUT_VERSION)
        partial = self.directory / ".index.json.partial"
        partial.write_bytes(canonical_json(index))
        partial.rename(self.directory / "index.json")

    def _old_entries(self) -> list[dict[str, Any]]:
        return self.entries() if (self.directory / "index.json").exists() else []

    def _find(self, reference: str) -> tuple[str, str]:
        if is_digest(reference) and self._blob_path(reference).is_file():
            return reference, MANIFEST
        for entry in self.entries():
            annotations = entry.get("annotations") or {}
            if annotations.get(REF_NAME) == reference and is_digest(str(entry.get("digest"))):
                return entry["digest"], str(entry.get("mediaType", MANIFEST))
        raise InputError(
            "no such image in the layout", where=f"{self}@{reference}", next_command=f"cat {self.directory}/index.json"
        )

    def _blob_path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise InputError(f"not a digest: {digest!r}", where=str(self), expected="sha256: and 64 hexadecimal digits")
        return self.directory / "blobs" / "sha256" / digest.removeprefix("sha256:")


def parse_layout(text: str) -> tuple[Layout, str]:
    """Read `oci:DIRECTORY[@sha256:…]`: the layout, and the digest of the image, that of the only one if none is given.

    Raises:
        InputError: not a layout, or it holds several images and none is named.
    """
    named = text.removeprefix("oci:")
    directory, _, digest = named.rpartition("@")
    if is_digest(digest):
        return Layout(Path(directory)), digest
    layout = Layout(Path(named))
    return layout, layout.only_digest()


class FileSink:
    """A file that bytes go to; the kernel copies what lies in other files, and shares their blocks where it can.

    Blocks can be shared only at offsets that are multiples of a block in both files; in a tar the data comes after a
    header of 512 bytes, so in practice the kernel copies.

    Args:
        file: an unbuffered file, open for writing.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._buffer = memoryview(b"")

    def write(self, data: bytes | memoryview) -> None:
        """Write all of the data."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def write_file(self, file: IO[bytes], offset: int, size_bytes: int) -> int:
        """Write a part of another file and return how much of it there was."""
        start, left = self._file.tell(), size_bytes
        while left:
            count = _copy_in_kernel(file, self._file, offset, left)
            if count is None:
                self._copy(file, offset, left)
                count = left
            if not count:
                break
            left, offset = left - count, offset + count
        _begin_write_back(self._file, start, size_bytes - left)
        return size_bytes - left

    def _copy(self, file: IO[bytes], offset: int, size_bytes: int) -> None:
        self._buffer = self._buffer or memoryview(bytearray(BUFFER_BYTES))
        for view in read_views(file, offset, size_bytes, self._buffer):
            self.write(view)


def _copy_in_kernel(source: IO[bytes], target: IO[bytes], offset: int, size_bytes: int) -> int | None:
    """Let the kernel copy; return how much it did, None where it cannot."""
    if not hasattr(os, "copy_file_range"):  # not on macOS
        return None
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), size_bytes, offset_src=offset)
    except OSError as error:
        if error.errno in _NO_KERNEL_COPY:
            return None
        raise


def _begin_write_back(file: IO[bytes], offset: int, size_bytes: int) -> None:
    """Let the disk begin with what was just copied: it is then done when the hashing is, not 0.4 s per GB later."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(file.fileno(), offset, size_bytes, os.POSIX_FADV_DONTNEED)


async def _copy(content: Content, file: IO[bytes], on_sent: Callable[[int], None]) -> WrittenBlob:
    def report(position: int) -> None:
        from_thread.run_sync(on_sent, position)

    on_sent(0)
    async with open_body(content, is_hashed=True) as body:
        await to_thread.run_sync(body.move, content.size_bytes, FileSink(file), report)
    return WrittenBlob(body.digest, body.position, body.position)


def _same(entry: dict[str, Any], digest: str, tag: str) -> bool:
    name = (entry.get("annotations") or {}).get(REF_NAME, "")
    return (entry.get("digest") == digest and name in {"", tag}) or (tag != "" and name == tag)


def _publish(partial: Path, place: Path) -> None:
    partial.chmod(0o644)
    partial.rename(place)


def _remove(partial: Path) -> None:
    partial.unlink(missing_ok=True)


def _cannot_write(place: Path, error: OSError) -> InputError:
    return InputError(f"cannot write: {error.strerror}", where=str(place), next_command=f"df -h {place}")
