"""What was there before a promotion, kept in the cluster until it is over: in a Secret, since it holds keys."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Secret

from servepath.cluster.client import errors_of
from servepath.cluster.labels import RECORD, RELEASE, labels_of
from servepath.errors import ClusterError
from servepath.promotion.history import pack, record_name, unpack

if TYPE_CHECKING:
    from collections.abc import Collection

    from lightkube import AsyncClient

    from servepath.promotion.record import Record

_KEY = "before.json.gz"


@dataclass(frozen=True, slots=True)
class Before:
    """What was there.

    Attributes:
        objects: what `restore.take_snapshot` gave.
        was_serving: whether it served: then it must serve again when it is put back.
    """

    objects: list[Any]
    was_serving: bool


async def keep_before(client: AsyncClient, record: Record, before: Before) -> None:
    """Keep what was there; one that a killed promotion of the same number left is written over.

    Raises:
        ClusterError: it is too large, or the API server refuses.
    """
    metadata = ObjectMeta(
        name=record_name(record.spec.name, record.number),
        namespace=record.spec.namespace,
        labels=labels_of(record.spec.name) | {RECORD: str(record.number)},
    )
    packed = pack({"objects": before.objects, "was_serving": before.was_serving})
    with errors_of(_place(record)):
        try:
            await client.create(Secret(metadata=metadata, data={_KEY: packed}))
        except ApiError as error:
            if error.status.code != HTTPStatus.CONFLICT:
                raise
            await client.replace(Secret(metadata=metadata, data={_KEY: packed}))


async def read_before(client: AsyncClient, record: Record) -> Before | None:
    """Read what was there, None where it was never kept: nothing had been changed then.

    Raises:
        ClusterError: it cannot be read, or the API server refuses.
    """
    with errors_of(_place(record)):
        try:
            secret = await client.get(
                Secret, record_name(record.spec.name, record.number), namespace=record.spec.namespace
            )
        except ApiError as error:
            if error.status.code == HTTPStatus.NOT_FOUND:
                return None
            raise
    try:
        values = unpack((secret.data or {})[_KEY])
        return Before(values["objects"], values["was_serving"])
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ClusterError(f"cannot be read: {type(error).__name__} {error}", where=_place(record)) from error


async def drop_before(client: AsyncClient, record: Record) -> None:
    """Forget what was there: the promotion is over.

    Raises:
        ClusterError: the API server refuses.
    """
    with errors_of(_place(record)):
        try:
            await client.delete(Secret, record_name(record.spec.name, record.number), namespace=record.spec.namespace)
        except ApiError as error:
            if error.status.code != HTTPStatus.NOT_FOUND:
                raise


async def drop_rest(client: AsyncClient, namespace: str, release: str, needed: Collection[int]) -> None:
    """Forget what was there before every promotion but these: one that was killed at its very end left it.

    Raises:
        ClusterError: the API server refuses.
    """
    listed = client.list(Secret, namespace=namespace, labels={RELEASE: release})
    with errors_of(f"Secrets in {namespace}"):
        async for secret in listed:
            metadata = secret.metadata or ObjectMeta()
            number = (metadata.labels or {}).get(RECORD)
            if metadata.name and number and int(number) not in needed:
                await client.delete(Secret, metadata.name, namespace=namespace)


def _place(record: Record) -> str:
    return f"Secret {record.spec.namespace}/{record_name(record.spec.name, record.number)}"
