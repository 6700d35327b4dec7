"""A whole promotion on an API server in memory and two real registries: how it ends, whatever ends it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from servepath.cluster.client import kubernetes
from servepath.cluster.lease import lease_name
from servepath.cluster.model import LeaseTimes
from servepath.errors import ClusterError
from servepath.evidence import CheckResult, RunInfo, Verdict
from servepath.modelcar.build import build_and_push
from servepath.modelcar.source.directory import open_source
from servepath.promotion import plan
from servepath.promotion.before import Before
from servepath.promotion.current import Current
from servepath.promotion.history import read_history
from servepath.promotion.model import GatePlan, PromotionRequest
from servepath.promotion.promote import recover_release
from servepath.promotion.record import Record, Stage, State
from servepath.promotion.run import run_promotion
from servepath.promotion.steps import Steps
from servepath.promotion.transaction import begin
from servepath.promotion.verify import verify_promotion
from servepath.promotion.waits import ClusterWaits
from servepath.report.write import load_report
from servepath.serving.model import ServingPath
from servepath.serving.slots import Slot
from servepath.stages import Stages
from tests.unit.modelcar.faults import Rule
from tests.unit.promotion.examples import DIGEST, ENGINE, NAMESPACE, RELEASE, SPEC, deployment, record, service
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.evidence import StageTiming
    from servepath.modelcar.registry.client import RegistryOptions
    from servepath.report.model import Report
    from servepath.serving.model import ServingSpec
    from tests.unit.modelcar.faults import Faults
    from tests.unit.promotion.api_server import World

pytestmark = pytest.mark.anyio

RUN = RunInfo("test", "sha256:l", "2026-01-02T03:04:05Z", "pytest")
KEPT = ("configmaps", "leases", "namespaces")
QUICK = LeaseTimes(duration_s=2, renew_s=0.2, wait_s=10.0, poll_s=0.05)


class Telling:
    """An observer that says when a stage begins."""

    def __init__(self, stage: str = "") -> None:
        self.stage, self.begun = stage, anyio.Event()
        self.timings: list[StageTiming] = []

    def started(self, name: str) -> None:
        if name == self.stage:
            self.begun.set()

    def noted(self, name: str, detail: str) -> None: ...

    def ended(self, timing: StageTiming) -> None:
        self.timings.append(timing)


@pytest.fixture
async def request_(
    model: Path,
    base: str,
    laptop: str,
    faults: Faults,
    cluster: Cluster,
    repository: str,
    options: RegistryOptions,
) -> PromotionRequest:
    """A modelcar in the laptop's registry, to be promoted to a cluster whose registry has faults."""
    pushed = await build_and_push(open_source(model), base, laptop, repository, options=options)
    return PromotionRequest(
        cluster=replace(cluster, registry=faults.host),
        source=pushed.reference,
        repository=f"promoted/{repository}",
        namespace=NAMESPACE,
        name=RELEASE,
        served_model_name="smol",
        engine_image=ENGINE,
        profile=SPEC.profile,
        path=ServingPath.RAW,
        gate=GatePlan(expected_answer=""),
        api_key="key-of-the-test",
        registries=options,
        lease=QUICK,
    )


async def promoted(request: PromotionRequest, telling: Telling | None = None, folder: Path | None = None) -> Report:
    stages = Stages(telling or Telling(), 0.0)
    return await run_promotion(request, RUN, stages, apply=True, report_directory=folder)


async def records(cluster: Cluster) -> list[Record]:
    async with kubernetes(cluster) as client:
        return [kept.record for kept in await read_history(client, NAMESPACE, RELEASE)]


def left(world: World) -> list[tuple[str, str]]:
    """What there is besides records, the Lease and the namespace."""
    return [(kind, name) for kind, _, name in world.objects if kind not in KEPT]


def stall(faults: Faults, seconds: float) -> None:
    """Let the cluster's registry say nothing for so long to whoever uploads."""
    faults.rules = [Rule("POST", "/uploads/", times=50, stall_s=seconds)]


def do_nothing(
    monkeypatch: pytest.MonkeyPatch, steps: Mapping[Stage, Callable[[], Awaitable[None]]] | None = None
) -> None:
    """Let every stage of a promotion but these succeed at once."""

    async def nothing() -> None: ...

    monkeypatch.setattr(Steps, "by_stage", lambda _: dict.fromkeys(list(Stage)[1:], nothing) | dict(steps or {}))


async def test_a_registry_that_stays_broken_ends_in_a_rollback(
    request_: PromotionRequest, world: World, faults: Faults, tmp_path: Path
) -> None:
    faults.rules = [Rule("POST", "/uploads/", times=1000, status=503)]
    report = await promoted(request_, folder=tmp_path / "report")
    assert report.error is not None
    assert report.error.exit_code == 9
    assert report.error.what.startswith("copy failed: ")
    assert left(world) == []
    (record,) = await records(request_.cluster)
    assert (record.state, record.stage) == (State.ROLLED_BACK, Stage.COPY)
    assert "503" in record.result
    document = load_report(tmp_path / "report")
    assert document["error"]["exit_code"] == 9
    assert document["promotion"]["record"]["state"] == "rolled-back"
    stages = {stage["name"]: stage["verdict"] for stage in document["stages"]}
    assert stages == {"plan": "pass", "recover": "pass", "copy": "fail", "roll back": "pass"}


@pytest.mark.parametrize("status", [403, 500])
async def test_a_cluster_that_refuses_an_object_ends_in_a_rollback_of_what_was_made(
    request_: PromotionRequest, world: World, status: int
) -> None:
    def refuse(method: str, path: str) -> int:
        is_real = method == "PATCH" and path.endswith("/deployments/smol-raw") and dry_runs_are_over
        return status if is_real else 0

    dry_runs_are_over = False
    telling = Telling("deploy")
    world.fault = refuse
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            nonlocal dry_runs_are_over
            await telling.begun.wait()
            dry_runs_are_over = True

        group.start_soon(watch)
        report = await promoted(request_, telling)
    assert report.error is not None
    assert report.error.exit_code == 9
    assert report.error.what.startswith("deploy failed: ")
    assert "injected" in report.error.what
    assert left(world) == [], "the Secret and the claim were made, and are gone"
    assert world.writes > 8


async def test_what_preflight_finds_missing_is_refused_with_every_fix_and_nothing_is_changed(
    request_: PromotionRequest, world: World
) -> None:
    async def preflight(spec: ServingSpec) -> tuple[CheckResult, ...]:
        del spec
        return tuple(missing(name) for name in ("gpu", "quota"))

    report = await promoted(replace(request_, preflight=preflight))
    assert report.error is not None
    assert report.error.exit_code == 8
    assert "fix: get a gpu" in report.error.what
    assert "fix: get a quota" in report.error.what
    assert world.writes == 0


@pytest.mark.parametrize(
    ("stable", "replaces", "name"),
    [
        (Slot.BLUE, False, f"{RELEASE}-green"),
        (Slot.GREEN, False, RELEASE),
        (Slot.BLUE, True, RELEASE),
        (Slot.GREEN, True, f"{RELEASE}-green"),
    ],
)
async def test_preflight_looks_for_room_in_the_slot_that_is_filled(
    request_: PromotionRequest, monkeypatch: pytest.MonkeyPatch, *, stable: Slot, replaces: bool, name: str
) -> None:
    engine = {"kind": "InferenceService", "metadata": {}}

    async def current(*_: object) -> Current:
        return Current(engine, stable, is_serving=True, has_route=True)

    async def preflight(spec: ServingSpec) -> tuple[CheckResult, ...]:
        assert spec.name == name
        raise ClusterError("it was asked")

    monkeypatch.setattr(plan, "read_current", current)
    request = replace(request_, path=ServingPath.KSERVE, replace=replaces, preflight=preflight)
    report = await run_promotion(request, RUN, Stages(Telling(), 0.0), apply=False)
    assert report.error is not None
    assert report.error.what == "it was asked"


async def test_what_scales_by_itself_is_not_replaced_by_one_engine(
    request_: PromotionRequest, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = {"kind": "Deployment", "metadata": {"name": f"{RELEASE}-raw"}}

    async def current(*_: object) -> Current:
        return Current(engine, Slot.BLUE, is_serving=True, has_route=False)

    monkeypatch.setattr(plan, "read_current", current)
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "apiVersion": "autoscaling/v2",
        "metadata": {"name": f"{RELEASE}-raw"},
        "spec": {"maxReplicas": 6, "scaleTargetRef": {"kind": "Deployment", "name": f"{RELEASE}-raw"}},
    }
    world.put("horizontalpodautoscalers", NAMESPACE, scaler)
    report = await run_promotion(request_, RUN, Stages(Telling(), 0.0), apply=False)
    assert report.error is not None
    assert report.error.exit_code == 8
    assert "decides how many engines serve" in report.error.what


async def test_what_to_type_next_works_when_the_run_is_over(request_: PromotionRequest) -> None:
    async def preflight(_: ServingSpec) -> tuple[CheckResult, ...]:
        raise ClusterError("no", next_command="kubectl --kubeconfig gone get pods")

    request = replace(request_, preflight=preflight, lasting=lambda command: command.replace("gone", "lasting"))
    report = await run_promotion(request, RUN, Stages(Telling(), 0.0), apply=False)
    assert report.error is not None
    assert "--kubeconfig lasting " in report.error.next_command


def missing(name: str) -> CheckResult:
    return CheckResult(name, "cluster", Verdict.FAIL, f"a {name}", "none", 0.0, f"get a {name}")


async def test_an_interrupt_puts_everything_back_and_is_reported(
    request_: PromotionRequest, world: World, faults: Faults, tmp_path: Path
) -> None:
    stall(faults, 2.0)
    telling = Telling("copy")
    async with anyio.create_task_group() as group:

        async def interrupt() -> None:
            await telling.begun.wait()
            group.cancel_scope.cancel()

        group.start_soon(interrupt)
        await promoted(request_, telling, tmp_path / "report")
    assert group.cancel_scope.cancelled_caught
    assert left(world) == []
    (record,) = await records(request_.cluster)
    assert (record.state, record.result) == (State.ROLLED_BACK, "copy: interrupted")
    assert load_report(tmp_path / "report")["error"]["exit_code"] == 130
    assert not world.objects["leases", NAMESPACE, lease_name(RELEASE)]["spec"]["holderIdentity"]


async def test_whoever_lost_the_lease_undoes_nothing_and_the_next_one_does(
    request_: PromotionRequest, world: World, faults: Faults
) -> None:
    stall(faults, 3.0)
    telling = Telling("copy")
    reports: list[Report] = []
    async with anyio.create_task_group() as group:

        async def steal() -> None:
            await telling.begun.wait()
            lease = world.objects["leases", NAMESPACE, lease_name(RELEASE)]
            world.put("leases", NAMESPACE, lease | {"spec": lease["spec"] | {"holderIdentity": "a thief"}})

        group.start_soon(steal)
        reports.append(await promoted(request_, telling))
    (report,) = reports
    assert report.error is not None
    assert report.error.exit_code == 5
    assert "now held by a thief" in report.error.what
    (record,) = await records(request_.cluster)
    assert (record.state, record.stage) == (State.RUNNING, Stage.COPY)
    world.objects["leases", NAMESPACE, lease_name(RELEASE)]["spec"]["holderIdentity"] = ""
    (recovered,) = await recover_release(request_.cluster, NAMESPACE, RELEASE, request_.registries, apply=True)
    assert "promotion 1, killed at copy: undone" in str(recovered)
    assert left(world) == []


@pytest.mark.parametrize("is_interrupted", [False, True], ids=["failed", "interrupted"])
async def test_whoever_loses_the_lease_while_undoing_stops_and_the_next_one_goes_on(
    request_: PromotionRequest, world: World, monkeypatch: pytest.MonkeyPatch, *, is_interrupted: bool
) -> None:
    stolen_s = 0.0

    def steal(method: str, path: str) -> int:
        """Take the Lease at the first deletion, and refuse deletions for longer than it takes to find that out."""
        nonlocal stolen_s
        if method != "DELETE" or not path.endswith("/services/new"):
            return 0
        if not stolen_s:
            stolen_s = time.monotonic()
            lease = world.objects["leases", NAMESPACE, lease_name(RELEASE)]
            world.put("leases", NAMESPACE, lease | {"spec": lease["spec"] | {"holderIdentity": "a thief"}})
        return 503 if time.monotonic() < stolen_s + 3.0 else 0

    async def fail() -> None:
        world.put("services", NAMESPACE, service("new"))
        world.fault = steal
        if is_interrupted:
            group.cancel_scope.cancel()
            await anyio.sleep_forever()
        raise ClusterError("it failed")

    do_nothing(monkeypatch, {Stage.COPY: fail})
    reports: list[Report] = []
    async with anyio.create_task_group() as group:
        reports.append(await promoted(request_))
    (report,) = reports
    assert report.error is not None
    assert report.error.exit_code == 5
    assert "now held by a thief; promotion 1 was being undone, and stopped" in report.error.what
    assert "the next promotion or rollback goes on" in report.error.expected
    assert "servepath rollback" in report.error.next_command
    assert ("services", "new") in left(world)
    (record,) = await records(request_.cluster)
    assert record.state is State.UNDOING
    world.fault = None
    world.objects["leases", NAMESPACE, lease_name(RELEASE)]["spec"]["holderIdentity"] = ""
    await recover_release(request_.cluster, NAMESPACE, RELEASE, request_.registries, apply=True)
    assert left(world) == []


async def test_a_second_one_is_refused_while_the_first_is_under_way(request_: PromotionRequest, faults: Faults) -> None:
    stall(faults, 4.0)
    telling = Telling("copy")
    reports: list[Report] = []
    async with anyio.create_task_group() as group:

        async def first() -> None:
            reports.append(await promoted(request_, telling))

        group.start_soon(first)
        await telling.begun.wait()
        impatient = replace(request_, lease=replace(QUICK, wait_s=0.5))
        second = await promoted(impatient)
        group.cancel_scope.cancel()
    assert second.error is not None
    assert second.error.exit_code == 8
    assert "another is under way: promotion " in second.error.what


@pytest.mark.parametrize("is_interrupted", [False, True], ids=["failed", "interrupted"])
async def test_what_cannot_be_put_back_is_said_and_left_to_the_next_one(
    request_: PromotionRequest, world: World, monkeypatch: pytest.MonkeyPatch, *, is_interrupted: bool
) -> None:
    def refuse(method: str, path: str) -> int:
        undoing = any(b"undoing" in str(obj).encode() for obj in list(world.objects.values()))
        return 403 if undoing and method == "GET" and path.endswith("/secrets") else 0

    async def fail() -> None:
        if is_interrupted:
            group.cancel_scope.cancel()
            await anyio.sleep_forever()
        raise ClusterError("it failed")

    world.fault = refuse
    do_nothing(monkeypatch, {Stage.COPY: fail})
    reports: list[Report] = []
    async with anyio.create_task_group() as group:
        reports.append(await promoted(request_))
    (report,) = reports
    assert report.error is not None
    assert report.error.exit_code == 5
    cause = "interrupted" if is_interrupted else "it failed"
    assert report.error.what.startswith(f"copy failed ({cause}), and what was there before could not be put back: ")
    assert "Secret in serving: " in report.error.what
    assert "servepath rollback" in report.error.next_command
    world.fault = None
    (record,) = await records(request_.cluster)
    assert record.state is State.UNDOING
    await recover_release(request_.cluster, NAMESPACE, RELEASE, request_.registries, apply=True)
    (record,) = await records(request_.cluster)
    assert record.state is State.ROLLED_BACK


@pytest.mark.parametrize(("method", "plural"), [("PUT", "configmaps"), ("DELETE", "secrets")])
async def test_an_interrupt_while_success_is_written_down_undoes_nothing(
    request_: PromotionRequest, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, plural: str
) -> None:
    do_nothing(monkeypatch)
    loop = asyncio.get_running_loop()
    async with anyio.create_task_group() as group:

        def interrupt(asked: str, path: str) -> int:
            is_verified = any('"stage": "verify"' in str(obj) for obj in world.objects.values())
            if is_verified and asked == method and f"/{plural}/" in path:
                loop.call_soon_threadsafe(group.cancel_scope.cancel)
                time.sleep(0.2)
            return 0

        world.fault = interrupt
        await promoted(request_, folder=tmp_path / "report")
    assert group.cancel_scope.cancelled_caught
    (record,) = await records(request_.cluster)
    assert (record.state, record.result) == (State.SUCCEEDED, "promoted")
    assert left(world) == []
    document = load_report(tmp_path / "report")
    assert document["error"]["exit_code"] == 130
    assert document["promotion"]["record"]["state"] == "succeeded"
    assert [stage["name"] for stage in document["stages"]] == ["plan", "recover"], "nothing was rolled back"


class Unavailable(BaseHTTPRequestHandler):
    """A gateway whose engine has died."""

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(503)


async def test_an_engine_that_died_before_it_was_verified_is_undone_and_not_awaited_for_ever(
    client: AsyncClient, cluster: Cluster, options: RegistryOptions, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servepath.promotion.verify._ANSWER_TIMEOUT_S", 0.5)
    spec = replace(SPEC, modelcar_reference=f"127.0.0.1:9/models/smol@{DIGEST}")
    one = replace(record(), spec=spec, path=ServingPath.RAW)
    transaction = await begin(
        client, one, Before([], was_serving=False), lambda found: ClusterWaits(client, cluster, found)
    )
    for stage in list(Stage)[1:]:
        await transaction.advance(stage)
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": {"hostnames": ["smol.test"]}}
    world.put("deployments", NAMESPACE, deployment(f"{RELEASE}-raw"))
    world.put("httproutes", NAMESPACE, service(f"{RELEASE}-raw") | route)
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Unavailable)) as gateway, anyio.fail_after(60):
        there = replace(cluster, gateway_url=f"http://127.0.0.1:{gateway.server_port}")
        (check, *_) = await verify_promotion(client, there, spec, ServingPath.RAW, options)
        assert check.verdict is Verdict.FAIL
        assert "smol.test: no completion in 0 s; last seen: HTTP 503" in check.seen
        (recovered,) = await recover_release(there, NAMESPACE, RELEASE, options, apply=True)
    assert "promotion 1, killed at verify: undone" in str(recovered)
    assert left(world) == []
