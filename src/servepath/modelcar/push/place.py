"""Put one blob into a target, unless it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from servepath.modelcar.model import Progress
from servepath.modelcar.store import Presence

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.modelcar.content import Content
    from servepath.modelcar.store import Descriptor, ImageTarget


class Placed(Struct, frozen=True):
    """Blobs that are in the target now: the bytes sent for them, and whether one of them had been there before."""

    sent_bytes: int
    was_there: bool


def ignore_progress(progress: Progress) -> None:
    """Do nothing with a progress report."""


async def place_blob(
    target: ImageTarget, content: Content, descriptor: Descriptor, name: str, progress: Callable[[Progress], None]
) -> Placed:
    """Write a blob of known digest, unless it is there or can be had without sending it.

    Args:
        target: a repository or a layout.
        content: the blob's bytes.
        descriptor: its digest and size.
        name: what it holds, for people.
        progress: called as bytes are written.

    Raises:
        InputError: the content cannot be read.
        RegistryError: the registry refused or failed.
    """
    size_bytes = descriptor.size_bytes
    presence = await target.obtain_blob(descriptor)
    if presence is not Presence.MISSING:
        progress(Progress(name, size_bytes, size_bytes))
        return Placed(0, was_there=presence is Presence.HERE)
    written = await target.write_blob(
        content, descriptor.digest, lambda sent: progress(Progress(name, sent, size_bytes))
    )
    return Placed(written.sent_bytes, was_there=False)
