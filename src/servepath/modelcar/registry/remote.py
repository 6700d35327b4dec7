"""A blob in a registry, streamed; a reading that breaks off goes on where it stopped."""

from __future__ import annotations

import hashlib
import re
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from msgspec import Struct

from servepath.errors import RegistryError
from servepath.modelcar.registry.retry import TryAgainError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from servepath.modelcar.content import Tap
    from servepath.modelcar.registry.client import Registry
    from servepath.modelcar.registry.connection import Response
    from servepath.modelcar.store import Descriptor

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class RemoteBlob(Struct, frozen=True):
    """A blob in a repository: a `Content`.

    Attributes:
        registry: where it is.
        repository: `host/repository`, for errors.
        path: the blob's path in the registry.
        descriptor: what the blob is; every reading is checked against it.
    """

    registry: Registry
    repository: str
    path: str
    descriptor: Descriptor

    @property
    def size_bytes(self) -> int:
        """Size that the descriptor says."""
        return self.descriptor.size_bytes

    async def open(self, tap: Tap) -> AsyncGenerator[bytes, None]:
        """Stream the blob by GET; after a broken connection or a transient refusal, go on by a Range request.

        The registry's retry policy bounds how often in a row that happens without a byte in between.

        Raises:
            RegistryError: it is not there, the connection keeps breaking, or its bytes are not those of its digest.
        """
        sha256, position, failures = hashlib.sha256(), 0, 0
        while position < self.size_bytes or not self.size_bytes:
            try:
                async with aclosing(self._read_from(position)) as chunks:
                    async for chunk in chunks:
                        await to_thread.run_sync(sha256.update, chunk)
                        tap(chunk)
                        position, failures = position + len(chunk), 0
                        yield chunk
                break
            except TryAgainError as error:
                failures += 1
                await self._wait(error, failures, position)
        digest = f"sha256:{sha256.hexdigest()}"
        if digest != self.descriptor.digest:
            raise wrong_digest(self.repository, digest, self.descriptor.digest)

    async def _read_from(self, position: int) -> AsyncGenerator[bytes, None]:
        """Read from a position on: a registry that knows no ranges sends the blob again, whose beginning is dropped."""
        headers = {"Range": f"bytes={position}-{self.size_bytes - 1}"} if position else {}
        async with self.registry.stream(self.path, headers) as opened:
            statuses = {200, 206} if position else {200}
            response = self.registry.expect(self.registry.transient(opened.response), "reading a blob", statuses)
            seen = self._start_of(response, position)
            async for chunk in opened.chunks:
                fresh = chunk[max(0, position - seen) :]
                seen += len(chunk)
                if seen > self.size_bytes:
                    raise self._broken(f"it sends more than {self.size_bytes} bytes")
                if fresh:
                    yield fresh
        if seen < self.size_bytes:
            raise TryAgainError(f"{seen} of {self.size_bytes} bytes")

    def _start_of(self, response: Response, position: int) -> int:
        if response.status == HTTPStatus.OK:
            return 0
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match.group(1)) != position:
            seen = response.headers.get("Content-Range", "nothing")
            raise self._broken(f"a range of {seen!r} for one from {position}")
        return position

    async def _wait(self, error: Exception, failures: int, position: int) -> None:
        policy = self.registry.options.retry
        if failures >= policy.attempts:
            raise self._broken(f"{error or type(error).__name__}, at byte {position}, {failures} times") from error
        await anyio.sleep(policy.wait_s(failures, getattr(error, "retry_after", "")))

    def _broken(self, what: str) -> RegistryError:
        return RegistryError(
            f"reading a blob: {what}",
            where=f"{self.repository}@{self.descriptor.digest}",
            expected="the whole blob",
            next_command=f"curl -i {self.registry.scheme}://{self.registry.address}/v2/",
        )


def wrong_digest(repository: str, seen: str, expected: str) -> RegistryError:
    """Say that a registry has other bytes under a digest."""
    return RegistryError(
        f"the registry has other bytes under a digest: they hash to {seen}",
        where=repository,
        expected=expected,
        next_command=f"skopeo inspect --raw docker://{repository}@{expected}",
    )
