"""What is in the layers of an image: by ranges where a layer is not compressed, else by reading it whole.

Nothing is stored: of the weights only the safetensors headers are kept, of the small files only those that checks need.
"""

from __future__ import annotations

import hashlib
import zlib
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import zstandard
from anyio import to_thread

from servepath.errors import InputError, ServepathError
from servepath.modelcar.checking.tarwalk import Stream, TarEntry, Window, walk
from servepath.modelcar.image.layers import LAYER_MEDIA_TYPE
from servepath.modelcar.source.safetensors import LENGTH_BYTES, Header, header_length, parse_header
from servepath.modelcar.source.weight_map import INDEX_SUFFIX, MAX_INDEX_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from servepath.modelcar.checking.tarwalk import Access
    from servepath.modelcar.content import Content
    from servepath.modelcar.store import Descriptor, ImageSource

SMALL_BYTES = 16 << 20
"""A compressed layer up to this size is read whole: the base's, and the one of small files."""
_SLICE_BYTES = 1 << 10  # zstd can expand 4 bytes to 128 KiB, so that a slice gives at most 32 MiB at once
_PIECE_BYTES = 1 << 20
_DOCUMENTS = ("config.json", INDEX_SUFFIX)


@dataclass(frozen=True, slots=True)
class LayerContents:
    """What a layer was found to hold.

    Attributes:
        descriptor: the layer, as the manifest names it.
        entries: the entries of its tar.
        headers: safetensors headers by name of entry, or why one is not usable.
        documents: files that checks read, by name of entry.
        digest: recomputed over the bytes as stored; empty if they were not all read.
        diff_id: recomputed over the tar; empty if it was not all read.
        problem: why it could not be listed, empty if it could.
        unread: why it was not tried, empty if it was.
    """

    descriptor: Descriptor
    entries: tuple[TarEntry, ...] = ()
    headers: dict[str, Header | InputError] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    digest: str = ""
    diff_id: str = ""
    problem: str = ""
    unread: str = ""


async def examine_parts(source: ImageSource, layer: Descriptor) -> LayerContents:
    """List a layer by reading parts of it; a compressed one is read whole if it is small, else not at all."""
    if layer.media_type != LAYER_MEDIA_TYPE:
        if layer.size_bytes <= SMALL_BYTES:
            return await examine_whole(source, layer)
        return LayerContents(layer, unread=f"{layer.media_type}: a part of a compressed layer cannot be read alone")
    window = Window(partial(source.read_range, layer), layer.size_bytes)
    return await _listed(window, LayerContents(layer))


async def examine_whole(source: ImageSource, layer: Descriptor) -> LayerContents:
    """Read a layer to its end: list it and recompute both of its digests."""
    stored, tar = hashlib.sha256(), hashlib.sha256()
    try:
        async with aclosing(_unpacked(source.blob(layer), layer.media_type, stored.update)) as unpacked:

            async def hashed() -> AsyncGenerator[bytes, None]:
                async for piece in unpacked:
                    await to_thread.run_sync(tar.update, piece)
                    yield piece

            async with aclosing(hashed()) as pieces:
                contents = await _listed(Stream(pieces), LayerContents(layer))
                async for _ in pieces:
                    pass
    except (ServepathError, zlib.error, zstandard.ZstdError) as error:
        return LayerContents(layer, problem=str(error))
    return LayerContents(
        layer,
        contents.entries,
        contents.headers,
        contents.documents,
        f"sha256:{stored.hexdigest()}",
        f"sha256:{tar.hexdigest()}",
        contents.problem,
    )


async def _listed(access: Access, empty: LayerContents) -> LayerContents:
    entries: list[TarEntry] = []
    headers: dict[str, Header | InputError] = {}
    documents: dict[str, bytes] = {}
    problem = ""
    try:
        async with aclosing(walk(access, empty.descriptor.digest)) as walked:
            async for entry in walked:
                entries.append(entry)
                if entry.is_file and entry.name.endswith(".safetensors"):
                    headers[entry.name] = await _header(access, entry)
                elif entry.is_file and entry.name.endswith(_DOCUMENTS) and entry.size_bytes <= MAX_INDEX_BYTES:
                    documents[entry.name] = await access.at(entry.data_offset, entry.size_bytes)
    except ServepathError as error:
        problem = str(error)
    return LayerContents(empty.descriptor, tuple(entries), headers, documents, problem=problem)


async def _header(access: Access, entry: TarEntry) -> Header | InputError:
    try:
        prefix = await access.at(entry.data_offset, min(LENGTH_BYTES, entry.size_bytes))
        length = header_length(prefix, entry.size_bytes, entry.name)
        header = await access.at(entry.data_offset + LENGTH_BYTES, length)
        if len(header) != length:
            return InputError("the layer ends in the header", where=entry.name, expected=f"{length} bytes")
        return parse_header(header, entry.size_bytes, entry.name)
    except InputError as error:
        return error


class _Decoder(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


class _Gzip:
    """Gzip of one or several members, as estargz writes it."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, /) -> bytes:
        plain = b""
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            plain += self._member.decompress(data)
            data = self._member.unused_data
        return plain


class _Plain:
    """A layer that is not compressed."""

    def decompress(self, data: bytes, /) -> bytes:
        return data


def _decoder(media_type: str) -> _Decoder:
    if media_type.endswith(("+gzip", ".gzip")):
        return _Gzip()
    if media_type.endswith(("+zstd", ".zstd")):
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    if media_type.endswith(".tar"):
        return _Plain()
    raise InputError("a layer of an unknown media type", where=media_type, expected="tar, tar+gzip or tar+zstd")


async def _unpacked(content: Content, media_type: str, tap: Callable[[bytes], None]) -> AsyncGenerator[bytes, None]:
    decoder = _decoder(media_type)
    async with aclosing(content.open(tap)) as chunks:
        async for chunk in chunks:
            if isinstance(decoder, _Plain):
                yield chunk
                continue
            pieces = _pieces(decoder, chunk)
            while piece := await to_thread.run_sync(next, pieces, b""):
                yield piece


def _pieces(decoder: _Decoder, chunk: bytes) -> Generator[bytes, None, None]:
    """Decompress a chunk in slices, so that a small input cannot become a large output at once."""
    plain = bytearray()
    for start in range(0, len(chunk), _SLICE_BYTES):
        plain += decoder.decompress(chunk[start : start + _SLICE_BYTES])
        if len(plain) >= _PIECE_BYTES:
            yield bytes(plain)
            plain.clear()
    if plain:
        yield bytes(plain)
