"""The pipe between reading and sending: content is read and hashed ahead while the chunk before it is on the wire."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from servepath.modelcar.content import Content

AHEAD_CHUNKS = 2
T = TypeVar("T")


class Pipe:
    """One reading of a content.

    Attributes:
        sent_bytes: how much was taken out of the pipe.
    """

    def __init__(self, content: Content, on_sent: Callable[[int], None]) -> None:
        self._content = content
        self._on_sent = on_sent
        self._sha256 = hashlib.sha256()
        self._receiver: MemoryObjectReceiveStream[bytes] | None = None
        self._failure: Exception | None = None
        self._rest = b""
        self.sent_bytes = 0

    @property
    def digest(self) -> str:
        """The digest of what was read; that of the content once all of it was taken."""
        return f"sha256:{self._sha256.hexdigest()}"

    async def run(self, consumer: Callable[[], Awaitable[T]]) -> T:
        """Read ahead while `consumer` takes parts out; return what it returns.

        Raises:
            Exception: what reading the content raised, or else what the consumer raised.
        """
        results: list[T] = []
        consumer_failure: Exception | None = None
        sender, self._receiver = anyio.create_memory_object_stream[bytes](AHEAD_CHUNKS)
        async with sender, self._receiver, anyio.create_task_group() as group:
            group.start_soon(self._fill, sender)
            try:
                results.append(await consumer())
            except Exception as error:  # noqa: BLE001 - raised below, outside the task group, as itself
                consumer_failure = error
            group.cancel_scope.cancel()
        failure = self._failure or consumer_failure
        if failure is not None:
            raise failure
        return results[0]

    async def part(self, size_bytes: int) -> AsyncIterator[bytes]:
        """Take the next `size_bytes` out, or what is left."""
        if self._receiver is None:
            raise ValueError("a part is taken while `run` runs")
        left = size_bytes
        while left:
            if not self._rest:
                try:
                    self._rest = await self._receiver.receive()
                except anyio.EndOfStream:
                    return
            chunk = self._rest[:left]
            self._rest = self._rest[len(chunk) :]
            left -= len(chunk)
            self.sent_bytes += len(chunk)
            yield chunk
            self._on_sent(self.sent_bytes)

    async def _fill(self, sender: MemoryObjectSendStream[bytes]) -> None:
        async with sender:
            try:
                async with aclosing(self._content.open(self._sha256.update)) as chunks:
                    async for chunk in chunks:
                        await sender.send(chunk)
            except anyio.BrokenResourceError:
                return
            except Exception as error:  # noqa: BLE001 - raised by `run`, before the error that it causes
                self._failure = error
