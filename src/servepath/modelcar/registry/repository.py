"""One repository of a registry: an `ImageSource` and an `ImageTarget`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from anyio import to_thread

from servepath.errors import RegistryError
from servepath.modelcar.content import PiecedContent, digest_of_bytes
from servepath.modelcar.push.fingerprint import fingerprint_of
from servepath.modelcar.registry.auth import TokenDeniedError
from servepath.modelcar.registry.connection import Request
from servepath.modelcar.registry.reference import check_repository, is_digest, repository_of
from servepath.modelcar.registry.remote import RemoteBlob, wrong_digest
from servepath.modelcar.registry.upload import SMALL_BYTES, Upload, UploadTarget
from servepath.modelcar.store import (
    ACCEPT_MANIFESTS,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Document,
    Presence,
    load_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from servepath.modelcar.content import Content
    from servepath.modelcar.registry.client import Registry
    from servepath.modelcar.registry.connection import Response
    from servepath.modelcar.registry.url import Url
    from servepath.modelcar.store import WrittenBlob

_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
MOUNT_TRIES = 3
"""So many repositories are asked for a blob: a question that is answered no costs two requests."""


class Repository:
    """A repository, such as `servepath/qwen` of `127.0.0.1:5000`."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.registry = registry
        self.name = check_repository(repository_of(registry.host, name))

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.name}"

    def path(self, kind: str, reference: str) -> str:
        """Return the path of a blob or manifest."""
        return f"/v2/{self.name}/{kind}/{reference}"

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Response | None:
        """Give what the registry answers to a reading; None where it is denied, by its token service or by itself.

        Raises:
            RegistryError: the registry does not answer.
        """
        try:
            response = await self.registry.request(method, path, headers=headers)
        except TokenDeniedError:
            return None
        return None if response.status in _DENIED else response

    async def read_manifest(self, reference: str) -> Document:
        """Read a manifest or index by digest or tag.

        Raises:
            RegistryError: it is not there, is too large, or its bytes are not those of its digest.
        """
        path = self.path("manifests", reference)
        response = await self.registry.request("GET", path, headers=ACCEPT_MANIFESTS)
        data = self.registry.expect(response, "reading a manifest", {200}).content
        if len(data) > MAX_MANIFEST_BYTES:
            raise RegistryError("a manifest is too large", where=f"{self}@{reference}", expected="at most 4 MiB")
        digest = digest_of_bytes(data)
        if is_digest(reference) and digest != reference:
            raise wrong_digest(str(self), digest, reference)
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
            async with self.registry.stream(self.path("blobs", descriptor.digest), headers) as opened:
                self.registry.expect(self.registry.transient(opened.response), "reading a range of a blob", {206})
                return b"".join([chunk async for chunk in opened.chunks])

        return await self.registry.retried(f"reading {self}@{descriptor.digest}", attempt)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Tell whether the repository has the blob, as far as may be seen.

        Who may not read a repository may be about to make it by a push, which says itself what it is refused for.

        Raises:
            RegistryError: the registry fails, or has a blob of another size under this digest.
        """
        response = await self.ask("HEAD", self.path("blobs", descriptor.digest))
        if response is None:
            return False
        if self.registry.expect(response, "looking for a blob", {200, 404}).status != HTTPStatus.OK:
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
        url = self.registry.url(self.path("blobs", "uploads/"))
        mounting = url.with_query(**{"mount": descriptor.digest, "from": other_repository})
        response = await self.registry.request("POST", mounting)
        if response.status == HTTPStatus.ACCEPTED:  # not mounted: an upload was begun instead
            await self._cancel(self.registry.location(response))
        return response.status == HTTPStatus.CREATED

    async def obtain_blob(self, descriptor: Descriptor) -> Presence:
        """Tell whether the blob is here, or could be taken from a repository of this registry that once held it.

        Raises:
            RegistryError: the registry refuses, or has a blob of another size under this digest.
        """
        cache, host = self.registry.options.cache, self.registry.host
        if await self.has_blob(descriptor):
            cache.remember_holder(host, self.name, descriptor.digest)
            return Presence.HERE
        for other in [name for name in cache.holders(host, descriptor.digest) if name != self.name][:MOUNT_TRIES]:
            if await self.mount_blob(descriptor, other):
                cache.remember_holder(host, self.name, descriptor.digest)
                return Presence.MOUNTED
            cache.forget_holder(host, other, descriptor.digest)
        return Presence.MISSING

    async def write_blob(self, content: Content, digest: str, on_sent: Callable[[int], None]) -> WrittenBlob:
        """Upload a blob, hashed on the way if its digest is not known, and go on where an earlier upload stopped.

        Raises:
            RegistryError: the registry refuses it, or what it received has another digest.
            InputError: the content cannot be read to its end.
        """
        cache = self.registry.options.cache
        fingerprint = None
        if isinstance(content, PiecedContent) and content.size_bytes > SMALL_BYTES:
            fingerprint = await to_thread.run_sync(fingerprint_of, content)
        target = UploadTarget(self.registry, self.path("blobs", "uploads/"), str(self))
        with cache.upload(self.registry.host, self.name, fingerprint) as session:
            upload = Upload(target, content, digest, session, on_sent)
            written = await upload.run()
        cache.remember_holder(self.registry.host, self.name, written.digest)
        return written

    async def write_manifest(self, document: Document, tag: str) -> None:
        """Put a manifest under its digest, or under a tag, unless it is there.

        Raises:
            RegistryError: the registry refuses it or files it under another digest.
        """
        path = self.path("manifests", tag or document.digest)
        there = await self.registry.request("HEAD", path, headers=ACCEPT_MANIFESTS)
        if there.status == HTTPStatus.OK and there.headers.get("Docker-Content-Digest") == document.digest:
            return
        headers = {"Content-Type": document.media_type}
        response = await self.registry.request("PUT", path, content=document.data, headers=headers)
        self.registry.expect(response, "writing the manifest", {201})
        filed = response.headers.get("Docker-Content-Digest", document.digest)
        if filed != document.digest:
            raise wrong_digest(str(self), filed, document.digest)

    async def _cancel(self, location: Url) -> None:
        await self.registry.send(Request("DELETE", location))
