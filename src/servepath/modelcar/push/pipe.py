"""The pipe between reading and sending: content is read ahead in the event loop while a worker thread sends."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from servepath.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from servepath.modelcar.content import Content, Tap

AHEAD_CHUNKS = 2


class Pipe:
    """One reading of a content, see `open_pipe`."""

    def __init__(self, content: Content, tap: Tap, receiver: MemoryObjectReceiveStream[bytes]) -> None:
        self._content = content
        self._tap = tap
        self._receiver = receiver
        self.failure: Exception | None = None

    async def next_chunk(self) -> bytes:
        """Take the next chunk out; it is empty at the content's end.

        Raises:
            InputError: reading the content failed: `failure` says how.
        """
        try:
            return await self._receiver.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            if self.failure is None:
                return b""
            raise InputError("a content cannot be read") from self.failure

    async def fill(self, sender: MemoryObjectSendStream[bytes]) -> None:
        """Read the content into the pipe."""
        async with sender:
            try:
                async with aclosing(self._content.open(self._tap)) as chunks:
                    async for chunk in chunks:
                        await sender.send(chunk)
            except anyio.BrokenResourceError:
                return
            except Exception as error:  # noqa: BLE001 - raised by `open_pipe`, before the error that it causes
                self.failure = error


@asynccontextmanager
async def open_pipe(content: Content, tap: Tap) -> AsyncGenerator[Pipe, None]:
    """Read a content ahead while the context is open; a worker thread takes it out.

    Args:
        content: what to read.
        tap: called with each chunk.

    Raises:
        Exception: what reading the content raised, before what the context raised because of it.
    """
    failure: Exception | None = None
    sender, receiver = anyio.create_memory_object_stream[bytes](AHEAD_CHUNKS)
    pipe = Pipe(content, tap, receiver)
    async with sender, receiver, anyio.create_task_group() as group:
        group.start_soon(pipe.fill, sender)
        try:
            yield pipe
        except Exception as error:  # noqa: BLE001 - raised below, outside the task group, as itself
            failure = error
        group.cancel_scope.cancel()
    failure = pipe.failure or failure
    if failure is not None:
        raise failure
