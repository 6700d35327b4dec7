"""Await what an object says of itself, by watch."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import httpx2

from servepath.cluster.client import errors_of, is_passing
from servepath.cluster.objects import KINDS, Json
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping

    from lightkube import AsyncClient

T = TypeVar("T")

_RETRIES = 20
_RETRY_DELAY_S = 0.5
_WATCH_S = 240
"""The API server ends a watch after so long, and the next one begins where it ended.

Without an end one on which nothing happens is forgotten by what stands between (a Google Cloud network drops a
connection that is idle for 600 s), and nobody hears of anything any more.
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """One of an object's `status.conditions`; `observed_generation` is 0 where the object does not say it."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    observed_generation: int = 0


def conditions(obj: Mapping[str, Any]) -> dict[str, Condition]:
    """Give an object's conditions by type."""
    found = (obj.get("status") or {}).get("conditions") or []
    return {
        entry["type"]: Condition(
            entry["type"],
            entry.get("status", "Unknown"),
            entry.get("reason", "") or "",
            entry.get("message", "") or "",
            entry.get("observedGeneration", 0) or 0,
        )
        for entry in found
    }


def is_true(obj: Mapping[str, Any], condition: str) -> bool:
    """Tell whether an object says of a condition, such as `Ready`, that it is so."""
    found = conditions(obj).get(condition)
    return found is not None and found.status == "True"


def is_observed(obj: Mapping[str, Any]) -> bool:
    """Tell whether the controller has seen the newest spec: before that, a status speaks of the one before.

    Not for an InferenceService in Standard mode: its `status.observedGeneration` is a copy of its Deployment's
    (KServe v0.19.0, pkg/apis/serving/v1beta1/inference_service_status.go:432), so the two numbers never meet.
    """
    observed = int((obj.get("status") or {}).get("observedGeneration") or 0)
    return observed >= int(obj.get("metadata", {}).get("generation") or 0)


def describe(obj: Mapping[str, Any] | None) -> str:
    """Give the conditions that are not True, in words, for an error's message."""
    if obj is None:
        return "it does not exist"
    bad = [condition for condition in conditions(obj).values() if condition.status != "True"]
    if not bad:
        return "no condition is False"
    return "; ".join(
        f"{condition.type}={condition.status}"
        + (f" {condition.reason}" if condition.reason else "")
        + (f" ({condition.message})" if condition.message else "")
        for condition in bad
    )


async def changes(  # noqa: PLR0913
    client: AsyncClient,
    kind: str,
    namespace: str | None,
    *,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    since: str | None = None,
) -> AsyncGenerator[tuple[str, Json], None]:
    """Give every state of the matching objects, beginning with the present one (or after the version `since`).

    A broken connection, or a resource version that the API server has forgotten, begins again with the present state.
    It is always listed first and then watched from the list's version: a watch without a version waits for the API
    server's cache to catch up, which on an etcd before 3.4.31 never comes for a kind that nobody changes.

    Yields:
        `ADDED`, `MODIFIED` or `DELETED`, and the object.

    Raises:
        ClusterError: the API server refuses, or does not answer twenty times in a row.
    """
    scope: dict[str, Any] = {"fields": {"metadata.name": name} if name else None}
    scope |= {"labels": dict(labels) if labels else None}
    if namespace:
        scope["namespace"] = namespace
    known: dict[str, Json] = {}
    failures = 0
    with errors_of(f"watch of {kind} in {namespace or 'the cluster'}"):
        while True:
            try:
                if since is None:
                    listed = client.list(KINDS[kind], **scope)
                    found = {obj["metadata"]["name"]: obj async for obj in _dictionaries(listed)}
                    since = listed.resourceVersion
                    for event in _differences(known, found):
                        yield event
                    known = found
                watched = client.watch(KINDS[kind], resource_version=since, server_timeout=_WATCH_S, **scope)
                async with aclosing(cast("AsyncGenerator[tuple[str, Any], None]", watched)) as events:
                    async for event_type, obj in events:
                        failures = 0
                        as_dictionary = obj.to_dict()
                        known[as_dictionary["metadata"]["name"]] = as_dictionary
                        if event_type == "DELETED":
                            del known[as_dictionary["metadata"]["name"]]
                        yield event_type, as_dictionary
            except httpx2.HTTPError as error:
                failures += 1
                if failures > _RETRIES or not is_passing(error, 410, 500):
                    raise
                since = None
                await anyio.sleep(_RETRY_DELAY_S)


async def _dictionaries(listed: AsyncIterable[Any]) -> AsyncGenerator[Json, None]:
    async for obj in listed:
        yield obj.to_dict()


def _differences(before: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Give the events that lead from one list of objects to the next."""
    for name, obj in before.items():
        if name not in now:
            yield "DELETED", obj
    for name, obj in now.items():
        yield ("MODIFIED" if name in before else "ADDED"), obj


async def present(client: AsyncClient, kind: str, namespace: str | None, name: str) -> tuple[Json | None, str]:
    """Give an object, None where it does not exist, and the resource version from which a watch misses nothing.

    Raises:
        ClusterError: the API server refuses, or does not know the kind.
    """
    scope: dict[str, Any] = {"namespace": namespace} if namespace else {}
    listed = client.list(KINDS[kind], fields={"metadata.name": name}, **scope)
    with errors_of(f"{kind} {name}"):
        found = [obj.to_dict() async for obj in listed]
        return (found[0] if found else None), listed.resourceVersion


async def until(  # noqa: PLR0913
    client: AsyncClient,
    kind: str,
    namespace: str | None,
    name: str,
    judge: Callable[[Json | None], T | None],
    *,
    timeout_s: float,
    expected: str,
) -> T:
    """Await a state of one object.

    Args:
        client: the Kubernetes client.
        kind: a kind of `objects.KINDS`.
        namespace: the object's namespace, None for a cluster-wide kind.
        name: the object's name.
        judge: gives None while the state is not reached, raises ClusterError when it never will be; it is given
            None where the object does not exist.
        timeout_s: budget in seconds.
        expected: the state in words.

    Returns:
        What `judge` gave.

    Raises:
        ClusterError: the budget is spent; the message carries the conditions that are not True.
    """
    last: Json | None = None
    with anyio.move_on_after(timeout_s):
        last, version = await present(client, kind, namespace, name)
        if (answer := judge(last)) is not None:
            return answer
        async with aclosing(changes(client, kind, namespace, name=name, since=version)) as events:
            async for event, obj in events:
                last = None if event == "DELETED" else obj
                if (answer := judge(last)) is not None:
                    return answer
    raise ClusterError(
        f"not reached in {timeout_s:.0f} s: {describe(last)}",
        where=f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}",
        expected=expected,
        next_command=f"kubectl {f'-n {namespace} ' if namespace else ''}describe {kind.lower()} {name}",
    )


async def until_gone(client: AsyncClient, kind: str, namespace: str, name: str, *, timeout_s: float) -> None:
    """Await that an object does not exist.

    Raises:
        ClusterError: it still exists when the budget is spent.
    """

    def is_gone(obj: Json | None) -> bool | None:
        return True if obj is None else None

    await until(client, kind, namespace, name, is_gone, timeout_s=timeout_s, expected="deleted")
