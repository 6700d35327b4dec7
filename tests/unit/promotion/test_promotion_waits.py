"""What an undo waits for, on a gateway that follows late and an engine that still answers somebody."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.bench.model import BenchPlan
from servepath.canary.gateway import await_taken
from servepath.canary.model import CanaryPlan, ClientPlan, Outcome
from servepath.canary.run import adopt, run_canary
from servepath.cluster.client import kubernetes
from servepath.errors import ClusterError
from servepath.promotion.before import Before
from servepath.promotion.history import read_history
from servepath.promotion.record import State
from servepath.promotion.restore import take_snapshot
from servepath.promotion.transaction import begin
from servepath.promotion.waits import ClusterWaits
from servepath.serving.deploy import deploy_kserve
from servepath.serving.slots import Slot
from tests.unit.canary.small_cluster import NAME, NAMESPACE, NEW, SPEC, SmallCluster, small_cluster
from tests.unit.promotion.examples import record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

PLAN = CanaryPlan(
    steps_percent=(100,),
    hold_s=0.05,
    max_extensions=20,
    max_slowdown_percent=300.0,
    bench=BenchPlan(requests_per_block=1, prompt_tokens=8, output_tokens=6, warmup_requests=1, bootstrap_resamples=100),
    client=ClientPlan(rate_per_s=50.0, output_tokens=3, timeout_s=5.0),
)
CANDIDATE = replace(SPEC, modelcar_reference=NEW)
LATE = 5


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SmallCluster]:
    async with small_cluster(tmp_path) as cluster:
        await deploy_kserve(cluster.cluster, SPEC, "key")
        yield cluster


@dataclass(slots=True)
class Late:
    """A gateway that follows only after so many requests, and a stream that ends when its engine has been asked of it.

    Attributes:
        small: the cluster around them.
        requests: how many requests the gateway has had.
        asked: how often the engine was asked whether a request is under way.
        at_the_end: by which route the gateway led when the candidate's engine was deleted, and whether the stream ran.
    """

    small: SmallCluster
    requests: int = 0
    asked: int = 0
    at_the_end: list[tuple[int, bool]] = field(default_factory=list)

    def follow(self) -> None:
        self.requests += 1
        if self.requests > LATE:
            self.small.follow()

    def watch(self, method: str, path: str) -> int:
        if path.endswith("/proxy/metrics"):
            self.asked += 1
            if self.asked == LATE:
                del self.small.world.objects["pods", NAMESPACE, "busy"]
        if method == "DELETE" and path.endswith("/inferenceservices/tiny-green-kserve"):
            runs = ("pods", NAMESPACE, "busy") in self.small.world.objects
            self.at_the_end.append((self.small.gateway.revision, runs))
        return 0


def stream(small: SmallCluster) -> None:
    """Let a pod of the candidate have a request under way."""
    labels = {"serving.kserve.io/inferenceservice": f"{NAME}-green-kserve"}
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "busy", "labels": labels}}
    small.world.put("pods", NAMESPACE, pod | {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})


@pytest.mark.parametrize("has_route", [True, False], ids=["its own route", "KServe's route"])
async def test_the_candidate_goes_when_the_gateway_has_followed_and_its_last_stream_has_ended(
    small: SmallCluster, *, has_route: bool
) -> None:
    if has_route:
        await adopt(small.cluster, NAMESPACE, NAME, SPEC.profile)
    async with kubernetes(small.cluster) as client:
        snapshot = await take_snapshot(client, NAMESPACE, NAME)
        before = small.world.seen("inferenceservices", "httproutes", "secrets", "networkpolicies")
        one = replace(record(), spec=CANDIDATE)
        waits = partial(ClusterWaits, client, small.cluster)
        transaction = await begin(client, one, Before(snapshot, was_serving=True), waits)
        result = await run_canary(small.cluster, CANDIDATE, PLAN)
        assert (result.outcome, small.weights()) == (Outcome.PROMOTED, {Slot.GREEN: 100})
        stream(small)
        late = Late(small)
        small.gateway.follow, small.world.fault = late.follow, late.watch
        with anyio.fail_after(30):
            await transaction.undo("verify failed")
    assert late.at_the_end == [(1 if has_route else 0, False)]
    assert small.runs() == {Slot.BLUE}
    assert small.world.seen("inferenceservices", "httproutes", "secrets", "networkpolicies") == before


async def test_a_gateway_that_does_not_follow_leaves_the_candidate_and_the_next_one_goes_on(
    small: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await adopt(small.cluster, NAMESPACE, NAME, SPEC.profile)
    async with kubernetes(small.cluster) as client:
        snapshot = await take_snapshot(client, NAMESPACE, NAME)
        waits = partial(ClusterWaits, client, small.cluster)
        one = replace(record(), spec=CANDIDATE)
        transaction = await begin(client, one, Before(snapshot, was_serving=True), waits)
        await run_canary(small.cluster, CANDIDATE, PLAN)
        small.gateway.follow = None
        monkeypatch.setattr("servepath.canary.slots.await_taken", partial(await_taken, timeout_s=0.3))
        with pytest.raises(ClusterError, match="the gateway did not take the route"):
            await transaction.undo("verify failed")
        assert small.runs() == set(Slot)
        monkeypatch.undo()
        small.gateway.follow = small.follow
        await transaction.undo("verify failed")
        (kept,) = await read_history(client, NAMESPACE, NAME)
    assert kept.record.state is State.ROLLED_BACK
    assert small.runs() == {Slot.BLUE}
