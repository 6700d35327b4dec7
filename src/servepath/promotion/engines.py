"""Await the engines that were put back, before clients are led to them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.promotion.inventory import key_of
from servepath.serving.find import api_key_of, expectation_of
from servepath.serving.readiness import await_rolled_out
from servepath.serving.stopped import ENGINE_KIND, is_stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightkube import AsyncClient

    from servepath.cluster.objects import Json
    from servepath.promotion.record import Record


async def await_engines(client: AsyncClient, record: Record, changed: Sequence[Json]) -> None:
    """Await that every engine among these objects is ready; a stopped one is left alone.

    Args:
        client: the Kubernetes client.
        record: the promotion that is undone; its profile's budgets are used.
        changed: the objects that were put back.

    Raises:
        ClusterError: with the real cause.
    """
    for obj in changed:
        kind, _ = key_of(obj)
        if kind == ENGINE_KIND[record.path] and not is_stopped(obj, record.path):
            expected = await expectation_of(client, obj, record.path, record.spec.profile)
            await await_rolled_out(client, expected, await api_key_of(client, obj, record.path))
