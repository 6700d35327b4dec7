"""One blob on its way into a repository; what breaks off goes on where it stopped, in this process or in the next.

The registry says how much it has (OCI distribution specification 1.1, "Resuming an upload"), and the digest at the end
covers all of it. A registry that lost the upload gets a new one: Debian's docker-registry 2.8 loses it whenever a
request breaks off, because the upload's address holds the offset of the last whole request.
"""

from __future__ import annotations

import re
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

from anyio import to_thread
from msgspec import Struct

from servepath.errors import RegistryError
from servepath.modelcar.push.body import HASHED_BYTES, open_body
from servepath.modelcar.registry.connection import Request
from servepath.modelcar.registry.retry import TryAgainError
from servepath.modelcar.registry.url import parse_url
from servepath.modelcar.store import WrittenBlob

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.modelcar.content import Content
    from servepath.modelcar.push.body import Body
    from servepath.modelcar.push.push_cache import UploadSession
    from servepath.modelcar.registry.client import Registry
    from servepath.modelcar.registry.connection import Response
    from servepath.modelcar.registry.url import Url

SMALL_BYTES = 8 << 20
"""Up to this size a blob of known digest goes in one PUT, and anew if that breaks off."""
LOOKS = 3
"""So often in a row an upload is asked about without an answer before a new one is begun."""
_OCTETS = {"Content-Type": "application/octet-stream"}
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_FOUND = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
_GONE = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})


class _Begun(Struct, frozen=True):
    """An upload: its address, how much of it is there, and whether an earlier attempt began it."""

    location: Url
    start: int = 0
    is_continued: bool = False


class UploadTarget(Struct, frozen=True):
    """Where a blob goes.

    Attributes:
        registry: the registry.
        uploads: path that begins an upload, `/v2/<name>/blobs/uploads/`.
        name: `host/repository`, for messages.
    """

    registry: Registry
    uploads: str
    name: str


class Upload:
    """An upload of one content.

    Args:
        target: where to.
        content: what to send.
        digest: its digest if that is known, else empty: it is then hashed on the way.
        session: where the upload's address is kept.
        on_sent: called in the event loop with the number of bytes that the registry was sent or had.
    """

    def __init__(
        self,
        target: UploadTarget,
        content: Content,
        digest: str,
        session: UploadSession,
        on_sent: Callable[[int], None],
    ) -> None:
        self._target = target
        self._content = content
        self._digest = digest
        self._session = session
        self._on_sent = on_sent
        self._confirmed_bytes = 0
        self._failed_looks = 0
        self._sent_bytes = 0

    async def run(self) -> WrittenBlob:
        """Upload the content; bytes that went over the wire in attempts that broke off count as sent.

        Raises:
            RegistryError: the registry refuses it, or what it received has another digest.
            InputError: the content cannot be read to its end.
        """
        return await self._target.registry.retried(f"uploading to {self._target.name}", self._attempt)

    async def _attempt(self) -> WrittenBlob:
        registry, before = self._target.registry, self._confirmed_bytes
        begun = await self._begin()
        try:
            async with open_body(self._content, is_hashed=not self._digest) as body:
                response = await self._send(body, begun)
        except TryAgainError as error:
            error.has_moved = self._confirmed_bytes > before
            raise
        if response.status in _GONE and begun.is_continued:
            self._session.save("")
            raise TryAgainError(f"the upload was not continued from byte {begun.start}: {response.status}")
        registry.expect(response, "uploading a blob", {HTTPStatus.CREATED})
        self._session.save("")
        return WrittenBlob(self._digest or body.digest, body.position, self._sent_bytes)

    async def _begin(self) -> _Begun:
        """Go on with the upload that there is, or begin one."""
        registry = self._target.registry
        if self._session.location:
            found = await self._find(self._session.location)
            if found is not None:
                return found
        response = registry.transient(await registry.send(Request("POST", registry.url(self._target.uploads))))
        location = registry.location(registry.expect(response, "beginning an upload", {HTTPStatus.ACCEPTED}))
        self._failed_looks = 0
        if not self._is_single_request:
            self._session.save(str(location))
        return _Begun(location)

    async def _find(self, address: str) -> _Begun | None:
        """Find an upload; None if it is gone, or cannot be used: its address is kept until there is a new one."""
        try:
            found = await self._look(address)
        except TryAgainError:
            self._failed_looks += 1
            if self._failed_looks < min(LOOKS, self._target.registry.options.retry.attempts):
                raise
            return None
        except (RegistryError, ValueError):
            return None
        self._failed_looks = 0
        return found

    async def _look(self, address: str) -> _Begun | None:
        """Ask how much of an upload is there; None if it is gone."""
        registry = self._target.registry
        location = registry.checked(parse_url(address))
        response = registry.transient(await registry.send(Request("GET", location)))
        match = _RANGE.fullmatch(response.headers.get("Range", ""))
        if response.status not in _FOUND or match is None:
            return None
        last, size_bytes = int(match.group(1)), self._content.size_bytes
        if size_bytes is not None and last >= size_bytes:
            return None
        start = last + 1 if last else 0  # "0-0" is how registries say that there is nothing
        if response.headers.get("Location"):
            location = registry.location(response)
        self._confirmed_bytes = max(start, self._confirmed_bytes)
        return _Begun(location, start, is_continued=True)

    @property
    def _is_single_request(self) -> bool:
        size_bytes, most_bytes = self._content.size_bytes, min(SMALL_BYTES, self._step_bytes)
        return bool(self._digest) and size_bytes is not None and size_bytes <= most_bytes

    @property
    def _step_bytes(self) -> int:
        return self._target.registry.options.chunk_bytes or sys.maxsize

    async def _send(self, body: Body, begun: _Begun) -> Response:
        """Send what is missing and finish the upload; the digest may be known only after the last byte."""
        location = begun.location
        while body.position < begun.start:
            await to_thread.run_sync(body.move, min(HASHED_BYTES, begun.start - body.position), None, _ignore)
        self._on_sent(begun.start)
        while (length := self._next_bytes(body)) != 0:
            headers = dict(_OCTETS)
            if length is not None and length < (self._content.size_bytes or 0):
                headers["Content-Range"] = f"{body.position}-{body.position + length - 1}"
            response = await self._exchange("PATCH", location, headers, body, length)
            if response.status != HTTPStatus.ACCEPTED:
                return response
            location = self._target.registry.location(response)
            self._session.save(str(location))
            if length is None:
                break
        rest_bytes = (self._content.size_bytes or body.position) - body.position
        location = location.with_query(digest=self._digest or body.digest)
        return await self._exchange("PUT", location, _OCTETS, body, rest_bytes)

    def _next_bytes(self, body: Body) -> int | None:
        """Return how much goes into the next request but the last; None for all of a content of unknown size."""
        if self._is_single_request:
            return 0
        size_bytes = self._content.size_bytes
        return None if size_bytes is None else min(self._step_bytes, size_bytes - body.position)

    async def _exchange(
        self, method: str, location: Url, headers: dict[str, str], body: Body, length: int | None
    ) -> Response:
        registry, before = self._target.registry, body.position
        try:
            response = await registry.send(Request(method, location, headers, b"", body, length, self._on_sent))
        finally:
            self._sent_bytes += body.position - before
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise TryAgainError("the token expired during the upload")
        return registry.transient(response)


def _ignore(position: int) -> None:
    """Do nothing with a position."""
