"""What an undo waits for: engines that serve again before clients are led to them, and clients before engines go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.canary.slots import await_left
from servepath.canary.stable import find_stable
from servepath.cluster.wait import is_true, until
from servepath.promotion.inventory import key_of
from servepath.serving.find import api_key_of, expectation_of
from servepath.serving.model import ServingPath
from servepath.serving.readiness import await_rolled_out
from servepath.serving.slots import Slot
from servepath.serving.stopped import ENGINE_KIND, is_stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.cluster.objects import Json
    from servepath.promotion.record import Record


@dataclass(frozen=True, slots=True)
class ClusterWaits:
    """Waits for what the cluster and its gateway do.

    Attributes:
        client: the Kubernetes client.
        cluster: whose gateway is asked.
        record: the promotion that is undone; its profile's budgets are used.
    """

    client: AsyncClient
    cluster: Cluster
    record: Record

    async def for_engines(self, changed: Sequence[Json]) -> None:
        """Await that every engine among these objects is ready, also in KServe's eyes; a stopped one is left alone.

        KServe leads its own route to an engine again only then.

        Raises:
            ClusterError: with the real cause.
        """
        path, profile = self.record.path, self.record.spec.profile
        for obj in changed:
            kind, name = key_of(obj)
            if kind != ENGINE_KIND[path] or is_stopped(obj, path):
                continue
            expected = await expectation_of(self.client, obj, path, profile)
            await await_rolled_out(self.client, expected, await api_key_of(self.client, obj, path))
            if path is ServingPath.KSERVE:
                await until(
                    self.client,
                    kind,
                    expected.namespace,
                    name,
                    _is_ready,
                    timeout_s=profile.startup_timeout_s,
                    expected="Ready",
                )

    async def for_clients(self) -> None:
        """Await that no client is led to the candidate any more, and that none is answered by it.

        On the raw path there is one place, whose engine has been put back already.

        Raises:
            ClusterError: what served before does not, or the gateway does not follow.
        """
        if self.record.path is not ServingPath.KSERVE:
            return
        spec = self.record.spec
        stable = await find_stable(self.client, self.cluster, spec.namespace, spec.name, spec.profile)
        revision, slot = (stable.state.revision, stable.state.stable) if stable.state else (None, Slot.BLUE)
        await await_left(self.client, spec, stable.endpoint, revision, slot.other)


def _is_ready(service: Any) -> bool | None:
    return is_true(service or {}, "Ready") or None
