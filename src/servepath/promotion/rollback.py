"""Going back: which promotion to go back to, and the request that does it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from servepath.cluster.client import kubernetes
from servepath.errors import PromotionRefusedError
from servepath.modelcar.registry.reference import parse_pinned
from servepath.promotion.history import last_succeeded, read_history
from servepath.promotion.model import GatePlan, PromotionRequest
from servepath.promotion.record import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.cluster.model import Cluster
    from servepath.modelcar.registry.client import RegistryOptions
    from servepath.promotion.history import Kept
    from servepath.promotion.record import Record


async def read_release(cluster: Cluster, namespace: str, release: str) -> tuple[Kept, ...]:
    """Read every record of a release, the oldest first.

    Raises:
        ClusterError: the API server refuses, or a record is not readable.
    """
    async with kubernetes(cluster) as client:
        return await read_history(client, namespace, release)


def version_before(history: Sequence[Kept], to: int = 0) -> Record:
    """Choose the promotion to go back to.

    Args:
        history: every record of the release.
        to: the number of a promotion that succeeded; 0 for the one that served before the one that serves now.

    Raises:
        PromotionRefusedError: there is no such promotion, it did not succeed, or it is what serves now.
    """
    records = [kept.record for kept in history]
    serving = last_succeeded(history)
    numbers = ", ".join(str(one.number) for one in records if one.state is State.SUCCEEDED)
    expected = f"one that succeeded: {numbers}" if numbers else "a promotion that succeeded"
    if serving is None:
        raise _refused("nothing was promoted", expected)
    if to:
        found = next((one for one in records if one.number == to), None)
        if found is None:
            raise _refused(f"there is no promotion {to}", expected)
        if found.state is not State.SUCCEEDED:
            raise _refused(f"promotion {to} is {found.state}", expected)
        if found.digest == serving.record.digest and found.spec == serving.record.spec:
            raise _refused(f"promotion {to} is what serves now", expected)
        return found
    for one in reversed(records):
        if one.state is State.SUCCEEDED and one.spec != serving.record.spec:
            return one
    raise _refused("nothing else was promoted before", expected)


def request_back(cluster: Cluster, record: Record, registries: RegistryOptions) -> PromotionRequest:
    """Give the request that goes back to a promotion.

    The modelcar is still in the cluster's registry under its digest. It was measured when it was promoted: it is
    checked, and then it has all of the traffic at once.
    """
    spec = record.spec
    pinned = parse_pinned(spec.modelcar_reference)
    return PromotionRequest(
        cluster=replace(cluster, registry=pinned.registry),
        source=spec.modelcar_reference,
        repository=pinned.repository,
        namespace=spec.namespace,
        name=spec.name,
        served_model_name=spec.served_model_name,
        engine_image=spec.engine_image,
        profile=spec.profile,
        path=record.path,
        gate=GatePlan(measured=False, expected_answer=""),
        canary=None,
        back_to=record.number,
        registries=registries,
        lock_digest=record.lock_digest,
        manifests_digest=record.manifests_digest,
    )


def _refused(what: str, expected: str) -> PromotionRefusedError:
    return PromotionRefusedError(what, where="rollback", expected=expected, next_command="servepath history --help")
