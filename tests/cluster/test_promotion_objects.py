"""What a promotion keeps and puts back on a real API server with KServe's controller; no pod ever runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from lightkube.resources.coordination_v1 import Lease

from servepath.cluster.lease import LeaseLostError, hold, lease_name
from servepath.cluster.model import LeaseTimes
from servepath.cluster.objects import apply, ensure_namespace, read
from servepath.cluster.wait import until
from servepath.errors import PromotionRefusedError
from servepath.promotion.before import Before, read_before
from servepath.promotion.history import read_history
from servepath.promotion.inventory import key_of
from servepath.promotion.record import Record, State
from servepath.promotion.restore import NoWaits, take_snapshot
from servepath.promotion.transaction import KILLED, begin, recover
from servepath.promotion.who import who
from servepath.serving.deploy import apply_kserve, apply_raw
from servepath.serving.model import ServingPath, ServingSpec
from tests.cluster.session import session
from tests.cluster.unschedulable import TIMEOUT_S, unschedulable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

KEY = "key-of-the-test"
OTHER = "127.0.0.1:5000/servepath/none@sha256:" + "c" * 64
QUICK = LeaseTimes(duration_s=3, renew_s=0.5, wait_s=1.0, poll_s=0.1)


@pytest.fixture
def spec() -> ServingSpec:
    return unschedulable("promotion")


def no_waits(_: Record) -> NoWaits:
    return NoWaits()


def by_key(snapshot: Sequence[Any]) -> dict[tuple[str, str], Any]:
    """A snapshot by kind and name, without the times at which fields were set."""
    for one in snapshot:
        for field in one["fields"]:
            field.pop("time", None)
    return {key_of(one["content"]): one for one in snapshot}


async def deploy(client: AsyncClient, cluster: Cluster, spec: ServingSpec, key: str) -> None:
    """Both paths, until KServe has noted down on its object what it does."""
    await apply_raw(client, cluster, spec, key)
    await apply_kserve(client, cluster, spec, key)

    def seen(obj: Any) -> Any:
        return obj if obj and obj["metadata"].get("finalizers") else None

    await until(
        client, "InferenceService", spec.namespace, "smol-kserve", seen, timeout_s=TIMEOUT_S, expected="seen by KServe"
    )
    await until(
        client,
        "Deployment",
        spec.namespace,
        "smol-kserve-predictor",
        lambda obj: obj,
        timeout_s=TIMEOUT_S,
        expected="made by KServe",
    )


@pytest.mark.parametrize("end", ["undone", "killed"])
async def test_a_release_is_put_back_field_for_field_with_the_owners_of_each(
    cluster: Cluster, spec: ServingSpec, end: str
) -> None:
    async with session(cluster, spec) as client:
        await deploy(client, cluster, spec, KEY)
        before = await take_snapshot(client, spec.namespace, spec.name)
        record = Record(1, spec, ServingPath.KSERVE, "x", await who(client), "2026-01-02T03:04:05+00:00")
        transaction = await begin(client, record, Before(before, was_serving=False), no_waits)
        kept = await read_before(client, record)
        assert kept is not None
        assert kept.objects == before
        profile = replace(spec.profile, engine_args=("--max-num-seqs=3",))
        changed = replace(spec, modelcar_reference=OTHER, profile=profile)
        await apply_raw(client, cluster, changed, "another-key")
        await apply_kserve(client, cluster, changed, "another-key", labels={"more": "labels"})
        route = await read(client, "HTTPRoute", "smol-raw", spec.namespace)
        assert route is not None
        made = {**route, "metadata": {**route["metadata"], "name": "smol-stable"}}
        for name in ("resourceVersion", "uid", "managedFields", "creationTimestamp", "generation"):
            made["metadata"].pop(name, None)
        await apply(client, made)
        if end == "undone":
            restored = await transaction.undo("the test")
            assert "HTTPRoute " + spec.namespace + "/smol-stable" in restored.deleted
        else:

            async def is_done(one: Record) -> bool:
                raise AssertionError(one)

            (recovered,) = await recover(client, spec.namespace, spec.name, is_done, no_waits)
            assert "killed at plan: undone" in str(recovered)
        assert by_key(await take_snapshot(client, spec.namespace, spec.name)) == by_key(before)
        (last,) = await read_history(client, spec.namespace, spec.name)
        assert last.record.state is State.ROLLED_BACK
        assert last.record.result == ("the test" if end == "undone" else KILLED)
        assert "servepath-admin" in last.record.who
        assert await read_before(client, record) is None, "keys are not kept longer than needed"


async def test_the_lease_lets_one_in_and_stops_whoever_lost_it(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await ensure_namespace(client, spec.namespace)
        async with hold(client, spec.namespace, spec.name, "first", QUICK):
            with pytest.raises(PromotionRefusedError, match="first holds the Lease"):
                async with hold(client, spec.namespace, spec.name, "second", QUICK):
                    pytest.fail("two hold it")
            await anyio.sleep(QUICK.duration_s)  # renewed all the while
        lease = await client.get(Lease, lease_name(spec.name), namespace=spec.namespace)
        assert lease.spec is not None
        assert not lease.spec.holderIdentity
        with pytest.raises(LeaseLostError, match="now held by a thief"):  # noqa: PT012
            async with hold(client, spec.namespace, spec.name, "third", QUICK):
                stolen = {"spec": {"holderIdentity": "a thief"}}
                await client.patch(Lease, lease_name(spec.name), stolen, namespace=spec.namespace)
                await anyio.sleep(TIMEOUT_S)
                pytest.fail("it went on")
