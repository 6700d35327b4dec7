"""A client for one test, which leaves nothing of the test's namespace."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from lightkube.resources.core_v1 import Namespace

from servepath.cluster.client import kubernetes
from servepath.serving.deploy import delete

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import ServingSpec


@asynccontextmanager
async def session(cluster: Cluster, spec: ServingSpec) -> AsyncIterator[AsyncClient]:
    """A client, and afterwards nothing of the spec's namespace."""
    async with kubernetes(cluster) as client:
        try:
            yield client
        finally:
            with anyio.CancelScope(shield=True):
                await delete(cluster, spec.namespace, spec.name)
                await client.delete(Namespace, spec.namespace)
