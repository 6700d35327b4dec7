"""The records of a release in its namespace: one labelled ConfigMap for each promotion, numbered, the newest kept.

Beside what it says it keeps what the next promotion compares with: the samples of its gate's benchmark.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap

from servepath.cluster.client import errors_of
from servepath.cluster.labels import RECORD, RELEASE, labels_of
from servepath.errors import ClusterError
from servepath.promotion.record import Record, State, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightkube import AsyncClient

    from servepath.cluster.objects import Json

LIMIT = 20
"""So many promotions that are over are kept, and always the last one that succeeded."""
MAX_KEPT_BYTES = 900_000
"""A ConfigMap may hold 1 MiB in all."""
_RECORD_KEY = "record.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it lies in the cluster.

    Attributes:
        record: what it says.
        version: the resource version that it was read or written at.
        attached: what is kept beside it by name, as JSON values.
    """

    record: Record
    version: str
    attached: Mapping[str, Any]


def record_name(release: str, number: int) -> str:
    """Give the name of a record's ConfigMap: it sorts by number."""
    return f"{release}-promotion-{number:06d}"


async def read_history(client: AsyncClient, namespace: str, release: str) -> tuple[Kept, ...]:
    """Read every record of a release, the oldest first.

    Raises:
        ClusterError: the API server refuses, or a record is not readable.
    """
    listed = client.list(ConfigMap, namespace=namespace, labels={RELEASE: release})
    with errors_of(f"promotion records in {namespace}"):
        found = [obj async for obj in listed]
    kept = [_kept(obj, namespace) for obj in found if RECORD in ((obj.metadata and obj.metadata.labels) or {})]
    return tuple(sorted(kept, key=lambda one: one.record.number))


def last_succeeded(history: Sequence[Kept]) -> Kept | None:
    """Give what serves now: the newest promotion that succeeded; None where none did."""
    return next((one for one in reversed(history) if one.record.state is State.SUCCEEDED), None)


async def create_record(client: AsyncClient, record: Record, attached: Mapping[str, Any]) -> Kept:
    """Write a new record.

    Args:
        client: the Kubernetes client.
        record: what it says; its number must be new.
        attached: what is kept beside it, by name: JSON values.

    Raises:
        ClusterError: there is one of this number, it is too large, or the API server refuses.
    """
    obj = _config_map(record, attached)
    with errors_of(_place(record)):
        return _kept(await client.create(obj), record.spec.namespace)


async def save_record(client: AsyncClient, kept: Kept, record: Record, **attached: Any) -> Kept:
    """Write what has become of a promotion.

    Args:
        client: the Kubernetes client.
        kept: the record as it was read or written last.
        record: what it says now.
        attached: what is kept beside it from now on; what was there already stays.

    Raises:
        ClusterError: somebody else has written it in between, it is too large, or the API server refuses.
    """
    obj = _config_map(record, {**kept.attached, **attached}, kept.version)
    try:
        with errors_of(_place(record)):
            return _kept(await client.replace(obj), record.spec.namespace)
    except ClusterError as error:
        # It may have been written, and the answer lost: then a second write would be refused as somebody else's.
        present = await _read_one(client, record)
        if present is not None and present.record == record and present.attached == {**kept.attached, **attached}:
            return present
        if present is None or present.version == kept.version:
            raise
        raise ClusterError(
            "another process has changed it",
            where=_place(record),
            expected="one promotion at a time",
            next_command=f"servepath history --namespace {record.spec.namespace} --name {record.spec.name}",
        ) from error


async def _read_one(client: AsyncClient, record: Record) -> Kept | None:
    """Read a record by its number, None where it is not there."""
    namespace = record.spec.namespace
    with errors_of(_place(record)):
        try:
            found = await client.get(ConfigMap, record_name(record.spec.name, record.number), namespace=namespace)
        except ApiError as error:
            if error.status.code == HTTPStatus.NOT_FOUND:
                return None
            raise
    return _kept(found, namespace)


async def prune(client: AsyncClient, namespace: str, release: str) -> tuple[int, ...]:
    """Delete the oldest records beyond the limit and return their numbers.

    What is not over, and the last that succeeded, always stays.

    Raises:
        ClusterError: the API server refuses.
    """
    history = await read_history(client, namespace, release)
    serving = last_succeeded(history)
    over = [one.record for one in history if one.record.is_over and one is not serving]
    surplus = over[: max(0, len(history) - LIMIT)]
    with errors_of(f"promotion records in {namespace}"):
        for record in surplus:
            await client.delete(ConfigMap, record_name(release, record.number), namespace=namespace)
    return tuple(record.number for record in surplus)


def _config_map(record: Record, attached: Mapping[str, Any], version: str | None = None) -> ConfigMap:
    packed = {f"{name}.json.gz": pack(value) for name, value in attached.items()}
    text = json.dumps(to_json(record), indent=1, ensure_ascii=False) + "\n"
    size_bytes = len(text.encode()) + sum(map(len, packed.values()))
    if size_bytes > MAX_KEPT_BYTES:
        raise ClusterError(
            f"the record has {size_bytes} bytes", where=_place(record), expected=f"at most {MAX_KEPT_BYTES}"
        )
    release = record.spec.name
    metadata = ObjectMeta(
        name=record_name(release, record.number),
        namespace=record.spec.namespace,
        labels=labels_of(release) | {RECORD: str(record.number)},
        resourceVersion=version,
    )
    return ConfigMap(metadata=metadata, data={_RECORD_KEY: text}, binaryData=packed)


def _kept(obj: ConfigMap, namespace: str) -> Kept:
    metadata = obj.metadata or ObjectMeta()
    where = f"ConfigMap {namespace}/{metadata.name}"
    try:
        document: Json = json.loads((obj.data or {})[_RECORD_KEY])
        attached = {name.removesuffix(".json.gz"): unpack(value) for name, value in (obj.binaryData or {}).items()}
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ClusterError(
            f"not a promotion record: {type(error).__name__} {error}",
            where=where,
            next_command=f"kubectl -n {namespace} get configmap {metadata.name} -o yaml",
        ) from error
    return Kept(from_json(document, where), str(metadata.resourceVersion), attached)


def pack(value: Any) -> str:
    """Give a JSON value as the text of a binary field: gzip in base64."""
    return base64.b64encode(gzip.compress(json.dumps(value).encode(), mtime=0)).decode()


def unpack(text: str) -> Any:
    """Give the value of a text of `pack`.

    Raises:
        ValueError: it is none; EOFError or OSError where it ends early or is no gzip.
    """
    return json.loads(gzip.decompress(base64.b64decode(text)))


def _place(record: Record) -> str:
    return f"ConfigMap {record.spec.namespace}/{record_name(record.spec.name, record.number)}"
