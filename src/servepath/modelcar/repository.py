"""One repository of a registry: an `ImageSource` and an `ImageTarget`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from servepath.errors import RegistryError
from servepath.modelcar.auth import STREAMED
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.pipe import Pipe
from servepath.modelcar.reference import check_repository, is_digest
from servepath.modelcar.remote import RemoteBlob, wrong_digest
from servepath.modelcar.retry import TryAgainError
from servepath.modelcar.store import MANIFEST_TYPES, MAX_MANIFEST_BYTES, Descriptor, Document, load_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.modelcar.content import Content
    from servepath.modelcar.registry import Registry

_OCTETS = {"Content-Type": "application/octet-stream"}


class Repository:
    """A repository, such as `servepath/qwen` of `127.0.0.1:5000`."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.registry = registry
        self.name = check_repository(name)

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.name}"

    def path(self, kind: str, reference: str) -> str:
        """Return the path of a blob or manifest."""
        return f"/v2/{self.name}/{kind}/{reference}"

    async def read_manifest(self, reference: str) -> Document:
        """Read a manifest or index by digest or tag.

        Raises:
            RegistryError: it is not there, is too large, or its bytes are not those of its digest.
        """
        accept = {"Accept": ", ".join(MANIFEST_TYPES)}
        path = self.path("manifests", reference)
        response = await self.registry.request("GET", path, headers=accept, follow_redirects=True)
        data = self.registry.expect(response, "reading a manifest", {200}).content
        digest = digest_of_bytes(data)
        if is_digest(reference) and digest != reference:
            raise wrong_digest(str(self), digest, reference)
        if len(data) > MAX_MANIFEST_BYTES:
            raise RegistryError(f"a manifest of {len(data)} bytes", where=f"{self}@{digest}", expected="at most 4 MiB")
        kind = load_object(data, digest).get("mediaType") or response.headers.get("Content-Type", "").partition(";")[0]
        return Document(str(kind), digest, data)

    def blob(self, descriptor: Descriptor) -> Content:
        """Return a blob's content, whose length and digest are checked with each reading."""
        return RemoteBlob(self.registry, str(self), self.path("blobs", descriptor.digest), descriptor)

    async def read_range(self, descriptor: Descriptor, start: int, length: int) -> bytes:
        """Read a part of a blob by a Range request.

        Raises:
            RegistryError: the registry does not answer with that range.
        """
        headers = {"Range": f"bytes={start}-{start + length - 1}"}

        async def attempt() -> bytes:
            try:
                async with self.registry.stream(self.path("blobs", descriptor.digest), headers) as response:
                    self.registry.expect(self.registry.transient(response), "reading a range of a blob", {206})
                    return await response.aread()
            except httpx.TransportError as error:
                raise TryAgainError(f"{type(error).__name__}: {error}") from error

        return await self.registry.retried(f"reading {self}@{descriptor.digest}", attempt)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Tell whether the repository has the blob.

        Raises:
            RegistryError: the registry refuses, or has a blob of another size under this digest.
        """
        path = self.path("blobs", descriptor.digest)
        response = await self.registry.request("HEAD", path, follow_redirects=True)
        if self.registry.expect(response, "looking for a blob", {200, 404}).status_code != httpx.codes.OK:
            return False
        length = response.headers.get("Content-Length")
        if length is not None and length != str(descriptor.size_bytes):
            raise RegistryError(
                f"a blob has {length} bytes",
                where=f"{self}@{descriptor.digest}",
                expected=f"{descriptor.size_bytes} bytes",
            )
        return True

    async def mount_blob(self, descriptor: Descriptor, other_repository: str) -> bool:
        """Ask the registry to take a blob from another of its repositories; tell whether it did."""
        query = {"mount": descriptor.digest, "from": other_repository}
        response = await self.registry.request("POST", self.path("blobs", "uploads/"), params=query)
        if response.status_code == httpx.codes.ACCEPTED:  # not mounted: an upload was begun instead
            await self._cancel(self.registry.location(response))
        return response.status_code == httpx.codes.CREATED

    async def write_blob(self, content: Content, digest: str, on_sent: Callable[[int], None]) -> str:
        """Upload a blob: in one request, or in requests of `chunk_bytes`; hashed on the way; begun anew if it breaks.

        Raises:
            RegistryError: the registry refuses it, or what it received has another digest.
            InputError: the content cannot be read to its end.
        """

        async def attempt() -> str:
            start = await self.registry.send("POST", self.path("blobs", "uploads/"))
            self.registry.expect(self.registry.transient(start), "beginning an upload", {202})
            pipe = Pipe(content, on_sent)
            location = self.registry.location(start)
            response = await pipe.run(lambda: self._send(pipe, location, digest, content.size_bytes))
            self.registry.expect(response, "uploading a blob", {201})
            if digest and pipe.digest != digest and content.size_bytes:
                raise wrong_digest(str(self), pipe.digest, digest)
            return digest or pipe.digest

        return await self.registry.retried(f"uploading to {self}", attempt)

    async def write_manifest(self, document: Document, tag: str) -> None:
        """Put a manifest under its digest, or under a tag.

        Raises:
            RegistryError: the registry refuses it or files it under another digest.
        """
        path = self.path("manifests", tag or document.digest)
        headers = {"Content-Type": document.media_type}
        response = await self.registry.request("PUT", path, content=document.data, headers=headers)
        self.registry.expect(response, "writing the manifest", {201})
        filed = response.headers.get("Docker-Content-Digest", document.digest)
        if filed != document.digest:
            raise wrong_digest(str(self), filed, document.digest)

    async def _send(self, pipe: Pipe, location: httpx.URL, digest: str, size_bytes: int) -> httpx.Response:
        """Send what is in the pipe and finish the upload; the digest may be known only after the last byte."""
        step = self.registry.options.chunk_bytes or size_bytes
        if digest and step >= size_bytes:
            return await self._put(pipe, location, digest, size_bytes)
        while pipe.sent_bytes < size_bytes:
            length = min(step, size_bytes - pipe.sent_bytes)
            headers = _OCTETS | {"Content-Length": str(length)}
            if step < size_bytes:
                headers["Content-Range"] = f"{pipe.sent_bytes}-{pipe.sent_bytes + length - 1}"
            response = await self._stream_once("PATCH", location, pipe, length, headers)
            location = self.registry.location(self.registry.expect(response, "uploading a blob", {202}))
        return await self._put(pipe, location, digest or pipe.digest, 0)

    async def _put(self, pipe: Pipe, location: httpx.URL, digest: str, length: int) -> httpx.Response:
        url = location.copy_merge_params({"digest": digest})
        return await self._stream_once("PUT", url, pipe, length, _OCTETS | {"Content-Length": str(length)})

    async def _stream_once(
        self, method: str, url: httpx.URL, pipe: Pipe, length: int, headers: dict[str, str]
    ) -> httpx.Response:
        body = pipe.part(length) if length else b""
        response = await self.registry.send(
            method, url, content=body, headers=headers, extensions={STREAMED: length > 0}
        )
        if response.status_code == httpx.codes.UNAUTHORIZED and length:
            raise TryAgainError("the token expired during the upload")
        return self.registry.transient(response)

    async def _cancel(self, location: httpx.URL) -> None:
        await self.registry.send("DELETE", location)
