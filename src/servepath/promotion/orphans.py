"""What servepath made in a namespace and nothing needs any more, each with the command that deletes it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.cluster.client import kubectl_for, kubernetes
from servepath.cluster.labels import RECORD, RELEASE
from servepath.cluster.objects import place
from servepath.promotion.history import read_history
from servepath.promotion.inventory import instances_of, key_of, owned
from servepath.serving.render import INSTANCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servepath.cluster.model import Cluster
    from servepath.cluster.objects import Json

_ENGINES = frozenset({"Deployment", "InferenceService"})


@dataclass(frozen=True, slots=True)
class Orphan:
    """An object that nothing needs: its place, why, and the command that deletes it."""

    place: str
    reason: str
    delete_command: str


async def find_orphans(cluster: Cluster, namespace: str) -> tuple[Orphan, ...]:
    """List what servepath made in a namespace and nothing needs: nothing is deleted.

    Raises:
        ClusterError: the API server refuses.
    """
    async with kubernetes(cluster) as client:
        objects = await owned(client, namespace)
        releases = {_labels(obj).get(RELEASE, "") for obj in objects if RECORD in _labels(obj)}
        unfinished = {
            (release, str(kept.record.number))
            for release in releases
            for kept in await read_history(client, namespace, release)
            if not kept.record.is_over
        }
    return orphans_of(cluster, objects, unfinished)


def orphans_of(cluster: Cluster, objects: tuple[Json, ...], unfinished: set[tuple[str, str]]) -> tuple[Orphan, ...]:
    """Tell which of servepath's objects nothing needs.

    Args:
        cluster: for the commands.
        objects: everything with servepath's label in one namespace.
        unfinished: release and number of each promotion that is not over.
    """
    engines = {_labels(obj).get(INSTANCE, "") for obj in objects if obj["kind"] in _ENGINES and not _has_owner(obj)}
    promoted = {_labels(obj).get(RELEASE, "") for obj in objects if RECORD in _labels(obj)}
    found = []
    for obj in objects:
        if not _has_owner(obj) and (reason := _reason(obj, engines, promoted, unfinished)):
            kind, name = key_of(obj)
            command = f"kubectl -n {obj['metadata']['namespace']} delete {kind.lower()} {shlex.quote(name)}"
            found.append(Orphan(place(obj), reason, kubectl_for(cluster, command)))
    return tuple(found)


def _reason(obj: Json, engines: set[str], promoted: set[str], unfinished: set[tuple[str, str]]) -> str:
    labels = _labels(obj)
    release, number, instance = labels.get(RELEASE, ""), labels.get(RECORD, ""), labels.get(INSTANCE, "")
    if number:
        is_kept = obj["kind"] == "ConfigMap" or (release, number) in unfinished
        return "" if is_kept else f"what was there before promotion {number}, which is over"
    if obj["kind"] in _ENGINES:
        recorded = any(instance in instances_of(one) for one in promoted)
        return "" if recorded else "an engine that no promotion made"
    siblings = next((names for name in engines if instance in (names := _names_like(name))), frozenset({instance}))
    return "" if siblings & engines else f"there is no engine of the name {instance or '(none)'}"


def _names_like(instance: str) -> frozenset[str]:
    """Give the names of all that an engine's release may have: its other slot and its route are no orphans."""
    base = instance.rpartition("-")[0].removesuffix("-green")
    return instances_of(base)


def _labels(obj: Mapping[str, object]) -> dict[str, str]:
    metadata = obj["metadata"]
    return dict(metadata.get("labels") or {}) if isinstance(metadata, dict) else {}


def _has_owner(obj: Mapping[str, object]) -> bool:
    metadata = obj["metadata"]
    return isinstance(metadata, dict) and any(one.get("controller") for one in metadata.get("ownerReferences") or ())
