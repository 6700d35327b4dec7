"""Put a release back to exactly what it was: what was changed or deleted is put back, what was made is deleted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from lightkube.core.exceptions import ApiError
from lightkube.types import CascadeType

from servepath.cluster.client import errors_of
from servepath.cluster.objects import place
from servepath.cluster.wait import until_gone
from servepath.errors import ClusterError
from servepath.promotion.inventory import RESOURCES, content_of, inventory, key_of, snapshot_of
from servepath.serving.stopped import ENGINE_KIND, is_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightkube import AsyncClient

    from servepath.cluster.objects import Json

_GONE_TIMEOUT_S = 180.0
_TRIES = 5


class _Turn(Enum):
    """When an object is put back."""

    FIRST = 1
    ROUTES = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class Restored:
    """What had to be done, as places of objects: `Deployment ns/name`."""

    deleted: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = ((self.deleted, "deleted"), (self.put_back, "put back"))
        return ", ".join(f"{len(objects)} {what}" for objects, what in counts if objects) or "nothing had changed"


class Waits(Protocol):
    """What is waited for while a release is put back."""

    async def for_engines(self, changed: Sequence[Json]) -> None:
        """Await that the engines among the objects that were put back serve, before a route leads there."""

    async def for_clients(self) -> None:
        """Await that the routes are followed and that no stream runs elsewhere, before an engine goes."""


class NoWaits:
    """Waits for nothing: of a release that did not serve, nobody is led anywhere."""

    async def for_engines(self, changed: Sequence[Json]) -> None:
        """Go on."""

    async def for_clients(self) -> None:
        """Go on."""


async def take_snapshot(client: AsyncClient, namespace: str, release: str) -> list[Json]:
    """Read what there is of a release, as it can be put back; it holds keys, and belongs into a Secret.

    Raises:
        ClusterError: the API server refuses.
    """
    return [snapshot_of(obj) for obj in await inventory(client, namespace, release)]


async def restore(
    client: AsyncClient,
    namespace: str,
    release: str,
    before: Sequence[Json],
    waits: Waits,
) -> Restored:
    """Make a release what a snapshot says; doing it again changes nothing.

    First the engines that served, then, when they serve again, the routes that lead to them, and a route that the
    snapshot does not know is deleted; then, when clients have left, engines that were stopped are stopped, and last
    everything else that the snapshot does not know is deleted. So clients are led to an engine that runs at any moment,
    and their streams come to their end.

    Args:
        client: the Kubernetes client.
        namespace: the release's namespace.
        release: its base name.
        before: what `take_snapshot` gave.
        waits: waits for what must be so before the next thing is done.

    Raises:
        ClusterError: the API server refuses, or an object is still there after three minutes.
    """
    wanted = {key_of(one["content"]): one for one in before}
    present = {key_of(obj): obj for obj in await inventory(client, namespace, release)}

    async def put_back(turn: _Turn) -> list[Json]:
        chosen = {key: one for key, one in wanted.items() if _turn_of(one["content"]) is turn}
        return [one["content"] for key, one in chosen.items() if await _put_back(client, present.get(key), one)]

    changed = await put_back(_Turn.FIRST)
    await waits.for_engines(changed)
    changed += await put_back(_Turn.ROUTES)
    surplus = [obj for key, obj in present.items() if key not in wanted]
    await _delete_all(client, namespace, [obj for obj in surplus if _turn_of(obj) is _Turn.ROUTES])
    await waits.for_clients()
    changed += await put_back(_Turn.STOPPED)
    await _delete_all(client, namespace, [obj for obj in surplus if _turn_of(obj) is not _Turn.ROUTES])
    return Restored(tuple(map(place, surplus)), tuple(map(place, changed)))


def _turn_of(content: Json) -> _Turn:
    kind = content["kind"]
    if kind == "HTTPRoute":
        return _Turn.ROUTES
    path = next((path for path, engine in ENGINE_KIND.items() if engine == kind), None)
    return _Turn.STOPPED if path is not None and is_stopped(content, path) else _Turn.FIRST


async def _delete_all(client: AsyncClient, namespace: str, objects: Sequence[Json]) -> None:
    """Delete objects in the opposite order of their making, and await that all are gone."""
    for obj in reversed(objects):
        await _delete(client, namespace, obj)
    for obj in objects:
        await _until_gone(client, namespace, obj)


async def _delete(client: AsyncClient, namespace: str, obj: Json) -> None:
    kind, name = key_of(obj)
    with errors_of(place(obj)):
        try:
            # Foreground: an object is gone only when its pods are.
            await client.delete(RESOURCES[kind], name, namespace=namespace, cascade=CascadeType.FOREGROUND)
        except ApiError as error:
            if error.status.code != HTTPStatus.NOT_FOUND:
                raise


async def _until_gone(client: AsyncClient, namespace: str, obj: Json) -> None:
    kind, name = key_of(obj)
    await until_gone(client, kind, namespace, name, timeout_s=_GONE_TIMEOUT_S)


async def _put_back(client: AsyncClient, present: Json | None, wanted: Json) -> bool:
    """Make one object what it was; tell whether it was something else."""
    content, fields = wanted["content"], wanted["fields"]
    namespace = content["metadata"]["namespace"]
    if present is not None and present["metadata"].get("deletionTimestamp"):
        await _until_gone(client, namespace, present)
        present = None
    if present is not None and content_of(present) == content:
        return False
    resource = RESOURCES[content["kind"]]
    with errors_of(place(content)):
        written = await _write(client, resource, content, fields)
        # The first write made this process an owner of the fields, so that a later server-side apply that drops one
        # would not take it away. A second one that changes nothing else gives them back to who had set them.
        await _give_back(client, resource, written, fields)
    return True


async def _give_back(client: AsyncClient, resource: Any, written: Json, fields: list[Json]) -> None:
    """Write who set which field; a controller that has written since has made it another object already."""
    with _suppress_conflict():
        await client.replace(resource(_with_metadata(written, managedFields=fields)))


async def _write(client: AsyncClient, resource: Any, content: Json, fields: list[Json]) -> Json:
    """Create or replace an object; a controller may write to it in between."""
    metadata = content["metadata"]
    for _ in range(_TRIES):
        try:
            present = await client.get(resource, metadata["name"], namespace=metadata["namespace"])
        except ApiError as error:
            if error.status.code != HTTPStatus.NOT_FOUND:
                raise
            return dict(await client.create(resource(_with_metadata(content, managedFields=fields))))
        version = present["metadata"]["resourceVersion"]
        with _suppress_conflict():
            return dict(await client.replace(resource(_with_metadata(content, resourceVersion=version))))
    raise ClusterError("somebody else keeps changing it", where=place(content), expected="no other writer")


def _with_metadata(obj: Json, **metadata: Any) -> Json:
    return {**obj, "metadata": {**obj["metadata"], **metadata}}


@contextmanager
def _suppress_conflict() -> Iterator[None]:
    """Go on after a write that was decided on what is no longer so."""
    try:
        yield
    except ApiError as error:
        if error.status.code != HTTPStatus.CONFLICT:
            raise
