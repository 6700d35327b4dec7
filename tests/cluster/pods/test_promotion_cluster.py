"""Promotions to a real KServe, kubelet and gateway, from a laptop's registry to the cluster's, with a simulated GPU.

One release serves all tests of this file, each begins from what the one before left. The GPU is an extended resource
of the node, the engine is the stand-in in the GPU overlay's place: everything around it is real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from ci.node import images, process, registry, tiny_model
from servepath.bench.model import BenchPlan
from servepath.bench.slo import Slo
from servepath.canary.model import CanaryPlan, ClientPlan
from servepath.canary.slots import delete_canary
from servepath.canary.stable import find_stable
from servepath.cluster.client import kubernetes
from servepath.cluster.model import LeaseTimes
from servepath.evidence import RunInfo, Verdict
from servepath.modelcar.attach.referrers import list_referrers
from servepath.modelcar.build import build_and_push
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.registry.retry import RetryPolicy
from servepath.modelcar.source.directory import open_source
from servepath.promotion.history import read_history
from servepath.promotion.inventory import inventory
from servepath.promotion.model import GatePlan, PromotionRequest
from servepath.promotion.orphans import find_orphans
from servepath.promotion.promote import recover_release
from servepath.promotion.record import Stage, State, Strategy
from servepath.promotion.rollback import request_back, version_before
from servepath.promotion.run import run_promotion
from servepath.report.write import load_report
from servepath.serving.deploy import delete
from servepath.stages import Stages
from tests.cluster.pods.world import everything, is_again, settled
from tests.unit.modelcar.faults import Rule, faulty_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from servepath.cluster.model import Cluster
    from servepath.evidence import StageTiming
    from servepath.promotion.history import Kept
    from servepath.report.model import Report
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

NAMESPACE = "promotion"
NAME = "tiny"
LAPTOP = "127.0.0.1:5001"
REPOSITORY = f"promoted/tiny-{uuid.uuid4().hex[:8]}"  # the registry keeps what an earlier run promoted
GPU = "nvidia.com/gpu"
# Slow enough that the machine's noise is small against it.
SPEED = ("--standin-ttft-ms=60", "--standin-itl-ms=15")
SMALL = BenchPlan(
    blocks=6,
    requests_per_block=1,
    rate_per_s=4.0,
    prompt_tokens=16,
    output_tokens=8,
    warmup_requests=1,
    bootstrap_resamples=2000,
    budget_s=5.0,
)
CANARY = CanaryPlan(
    steps_percent=(50, 100),
    hold_s=3.0,
    max_extensions=4,
    max_slowdown_percent=60.0,
    bench=SMALL,
    client=ClientPlan(rate_per_s=4.0, output_tokens=10, timeout_s=20.0),
)
GATE = GatePlan(SMALL, Slo(ttft_p95_s=2.0, itl_p95_s=1.0, e2e_p95_s=5.0), 60.0, expected_answer="")
QUICK = LeaseTimes(duration_s=10, renew_s=2.0, wait_s=25.0)
RUN = RunInfo("test", "sha256:l", "2026-01-02T03:04:05Z", "pytest", manifests_digest="sha256:m")


@dataclass(frozen=True, slots=True)
class Laptop:
    """Where modelcars come from.

    Attributes:
        modelcars: three of them, in the laptop's registry, with SBOM and provenance.
        options: how registries are talked to: with quick retries.
    """

    modelcars: tuple[str, str, str]
    options: RegistryOptions


class Watching:
    """An observer that acts when a stage begins."""

    def __init__(self, acts: dict[str, Callable[[], None]] | None = None) -> None:
        self.acts = acts or {}
        self.told: list[str] = []

    def started(self, name: str) -> None:
        self.told.append(name)
        if name in self.acts:
            self.acts[name]()

    def noted(self, name: str, detail: str) -> None: ...

    def ended(self, timing: StageTiming) -> None: ...


@pytest.fixture(scope="module")
def laptop(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A second registry with three models."""
    folder = tmp_path_factory.mktemp("laptop")
    options = RegistryOptions(retry=RetryPolicy(attempts=3, base_s=0.01, longest_s=0.2))

    async def start() -> tuple[registry.Registry, tuple[str, ...]]:
        running = await registry.start(folder / "storage", folder, layout.logs, LAPTOP)
        base = await images.push(images.busybox(), LAPTOP, "servepath/busybox")
        return running, tuple([await push(base, seed) for seed in (10, 11, 12)])

    async def push(base: str, seed: int) -> str:
        directory = folder / f"tiny-{seed}"
        tiny_model.write_tiny_model(directory, seed)
        build = BuildOptions(attest=True)
        return (await build_and_push(open_source(directory), base, LAPTOP, "models/tiny", build=build)).reference

    running, (first, second, third) = anyio.run(start)
    yield Laptop((first, second, third), options)
    anyio.run(running.running.stop)


@pytest.fixture(scope="module")
def ask(serving_cluster: Cluster, standin: Standin, laptop: Laptop, plane: ControlPlane) -> Iterator[Ask]:
    """How promotions are asked for, on a node with two GPUs, which other tests want too."""
    anyio.run(give_gpus, plane, 2)
    yield Ask(serving_cluster, standin, laptop)
    anyio.run(plane.kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")


async def give_gpus(plane: ControlPlane, count: int) -> None:
    """Make GPUs an extended resource of the node, as its device plugin would."""
    node = json.loads(await plane.kubectl("get", "nodes", "--output=json"))["items"][0]["metadata"]["name"]
    patch = json.dumps({"status": {"capacity": {GPU: str(count)}, "allocatable": {GPU: str(count)}}})
    await plane.kubectl("patch", "node", node, "--subresource=status", "--type=merge", f"--patch={patch}")


@dataclass(frozen=True, slots=True)
class Ask:
    """Makes requests for the release of this file."""

    cluster: Cluster
    standin: Standin
    laptop: Laptop

    def for_model(self, number: int, *engine_args: str, **changes: Any) -> PromotionRequest:
        profile = replace(self.standin.profile, name="gpu", engine_args=(*SPEED, *engine_args), patience_s=5)
        request = PromotionRequest(
            cluster=self.cluster,
            source=self.laptop.modelcars[number],
            repository=REPOSITORY,
            namespace=NAMESPACE,
            name=NAME,
            served_model_name="tiny",
            engine_image=self.standin.engine,
            profile=profile,
            gate=GATE,
            canary=CANARY,
            usd_per_hour=1.5,
            api_key="key-of-the-promotion",
            registries=self.laptop.options,
            lease=QUICK,
        )
        return replace(request, **changes)


async def promoted(request: PromotionRequest, watching: Watching | None = None, folder: Path | None = None) -> Report:
    stages = Stages(watching or Watching(), 0.0)
    return await run_promotion(request, RUN, stages, apply=True, report_directory=folder)


async def history_of(cluster: Cluster) -> tuple[Kept, ...]:
    async with kubernetes(cluster) as client:
        return await read_history(client, NAMESPACE, NAME)


async def answers_from(cluster: Cluster) -> tuple[int, str]:
    """The status of a completion through the stable hostname, and the digest that its pod was deployed with."""
    host = f"{NAME}-kserve-{NAMESPACE}."
    profile = (await history_of(cluster))[-1].record.spec.profile
    async with kubernetes(cluster) as client:
        stable = await find_stable(client, cluster, NAMESPACE, NAME, profile)
    assert stable.endpoint.host.startswith(host)
    async with httpx.AsyncClient(base_url=cluster.gateway_url, trust_env=False, timeout=30) as http:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        answer = await http.post("/v1/chat/completions", headers=stable.endpoint.headers(), json=body)
    return answer.status_code, stable.endpoint.modelcar_digest


def digest(request: PromotionRequest) -> str:
    return request.source.partition("@")[2]


async def test_a_plan_says_what_would_be_done_and_changes_nothing(ask: Ask, plane: ControlPlane) -> None:
    before = await settled(plane, NAMESPACE)
    stages = Stages(Watching(), 0.0)
    report = await run_promotion(ask.for_model(0), RUN, stages, apply=False)
    assert report.error is None, report.error
    assert report.promotion is not None
    plan = report.promotion.plan
    assert plan is not None
    assert plan.strategy is Strategy.FIRST
    assert plan.copy.missing_bytes == plan.copy.size_bytes > 0
    assert {change.action for change in plan.changes} == {"create"}
    assert {change.place.split()[0] for change in plan.changes} >= {
        "Namespace",
        "Secret",
        "InferenceService",
        "HTTPRoute",
    }
    assert plan.cost is not None
    assert plan.cost.after_usd_per_hour == 1.5
    assert plan.may_be_lost == ()
    assert await everything(plane, NAMESPACE, exactly=True) == before
    async with httpx.AsyncClient(trust_env=False) as http:
        tags = await http.get(f"http://{ask.cluster.registry}/v2/{REPOSITORY}/tags/list")
    assert tags.status_code == 404, "the repository was not made"


async def test_the_first_promotion_serves_the_same_digest_with_all_that_speaks_of_it(ask: Ask, tmp_path: Path) -> None:
    request = ask.for_model(0)
    watching = Watching()
    report = await promoted(request, watching, tmp_path)
    assert report.error is None, report.error
    assert watching.told == ["plan", "recover", "copy", "deploy", "gate", "shift", "verify"]
    assert await answers_from(ask.cluster) == (200, digest(request))
    (kept,) = await history_of(ask.cluster)
    assert (kept.record.number, kept.record.state, kept.record.strategy) == (1, State.SUCCEEDED, Strategy.FIRST)
    assert "servepath-admin" in kept.record.who
    async with open_registry(ask.cluster.registry, ask.laptop.options) as client:
        there = Repository(client, REPOSITORY)
        assert (await there.read_manifest(digest(request))).digest == digest(request)
        assert len(await list_referrers(there, digest(request))) == 2
    document = load_report(tmp_path)
    assert document["promotion"]["record"]["digest"] == digest(request)
    assert document["verdict"] == "pass"
    assert "key-of-the-promotion" not in (tmp_path / "report.json").read_text()


async def test_a_plan_of_the_next_version_shows_the_diff_and_changes_nothing(ask: Ask, plane: ControlPlane) -> None:
    before = await settled(plane, NAMESPACE)
    report = await run_promotion(ask.for_model(1, replace=True), RUN, Stages(Watching(), 0.0), apply=False)
    assert report.promotion is not None
    plan = report.promotion.plan
    assert plan is not None
    assert plan.strategy is Strategy.REPLACE
    assert plan.serving == f"{digest(ask.for_model(0))} (promotion 1)"
    assert len(plan.may_be_lost) == 1
    (service,) = [change for change in plan.changes if change.place.startswith("InferenceService")]
    assert service.action == "change"
    changed = [line for line in service.diff.splitlines() if line.startswith(("+ ", "- "))]
    assert len(changed) == 2, service.diff
    assert all("oci://" in line for line in changed)
    after = await everything(plane, NAMESPACE, exactly=True)
    assert after == before


async def test_the_next_version_goes_through_a_canary_and_can_be_gone_back_from(ask: Ask, tmp_path: Path) -> None:
    request = ask.for_model(1)
    report = await promoted(request, None, tmp_path)
    assert report.error is None, report.error
    assert report.canary is not None
    assert report.canary.failed_count == 0
    assert [(check.name, check.verdict) for check in report.checks if check.subject == "gate"] == [
        ("as_fast_as_what_was_promoted_last", Verdict.PASS)
    ]
    assert await answers_from(ask.cluster) == (200, digest(request))
    history = await history_of(ask.cluster)
    assert [(kept.record.number, kept.record.replaces) for kept in history] == [(1, 0), (2, 1)]
    back = request_back(ask.cluster, version_before(history), ask.laptop.options)
    report = await promoted(replace(back, lease=QUICK))
    assert report.error is None, report.error
    assert await answers_from(ask.cluster) == (200, digest(ask.for_model(0)))
    last = (await history_of(ask.cluster))[-1].record
    assert (last.number, last.back_to, last.state) == (3, 1, State.SUCCEEDED)


def lose_the_image(ask: Ask, request: PromotionRequest) -> Callable[[], None]:
    """Let the cluster's registry lose the manifest."""

    def act() -> None:
        url = f"http://{ask.cluster.registry}/v2/{REPOSITORY}/manifests/{digest(request)}"
        assert httpx.delete(url, trust_env=False).status_code == 202

    return act


SLOW = ("--standin-ttft-ms=400", "--standin-itl-ms=100")


@pytest.mark.parametrize("stage", [Stage.COPY, Stage.DEPLOY, Stage.GATE, Stage.SHIFT, Stage.VERIFY])
async def test_whatever_stage_fails_everything_is_exactly_what_it_was(
    ask: Ask, plane: ControlPlane, stage: Stage
) -> None:
    before = await everything(plane, NAMESPACE)
    served = await answers_from(ask.cluster)
    with faulty_proxy(LAPTOP) as broken:
        broken.rules = [Rule("GET", "/blobs/", times=10_000, status=503)]
        unreachable = ask.laptop.modelcars[2].replace(LAPTOP, broken.host)
        hopeless = replace(CANARY, slo=Slo(ttft_p95_s=0.0001))
        request, watching = {
            Stage.COPY: (ask.for_model(2, source=unreachable), Watching()),
            Stage.DEPLOY: (ask.for_model(1, "--standin-crash-after-ms=1"), Watching()),
            Stage.GATE: (ask.for_model(1, *SLOW), Watching()),
            Stage.SHIFT: (ask.for_model(1, canary=hopeless), Watching()),
            Stage.VERIFY: (ask.for_model(1), Watching({"verify": lose_the_image(ask, ask.for_model(1))})),
        }[stage]
        report = await promoted(request, watching)
    assert report.error is not None
    assert report.error.exit_code == 9, report.error
    assert report.error.what.startswith(f"{stage} failed: ")
    # At `verify` the engine of before had been stopped already: it runs again, in another pod.
    await is_again(plane, NAMESPACE, before, pods=stage is not Stage.VERIFY)
    assert await answers_from(ask.cluster) == served
    last = (await history_of(ask.cluster))[-1].record
    assert (last.state, last.stage) == (State.ROLLED_BACK, stage)


async def test_in_place_on_one_gpu_a_slow_candidate_is_put_back(ask: Ask, plane: ControlPlane) -> None:
    before = await everything(plane, NAMESPACE)
    served = await answers_from(ask.cluster)
    await give_gpus(plane, 1)
    try:
        report = await promoted(ask.for_model(2, *SLOW, replace=True, gate=replace(GATE, slo=Slo(ttft_p95_s=0.2))))
    finally:
        await give_gpus(plane, 2)
    assert report.error is not None
    assert report.error.exit_code == 9
    assert report.error.what.startswith("gate failed: ")
    await is_again(plane, NAMESPACE, before, pods=False)
    assert await answers_from(ask.cluster) == served


async def test_a_quota_is_said_in_the_clusters_own_words(ask: Ask, plane: ControlPlane) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": NAMESPACE},
        "spec": {"hard": {f"requests.{GPU}": "1"}},
    }
    await plane.kubectl.apply([quota])
    try:
        before = await everything(plane, NAMESPACE)
        report = await promoted(ask.for_model(1))
        assert report.error is not None
        assert report.error.exit_code == 9
        assert "exceeded quota: gpus" in report.error.what
        await is_again(plane, NAMESPACE, before)
    finally:
        await plane.kubectl("delete", "resourcequota/gpus", f"--namespace={NAMESPACE}")


async def test_a_candidate_whose_pod_is_evicted_is_not_let_through(ask: Ask, plane: ControlPlane) -> None:
    before = await everything(plane, NAMESPACE)

    def evict() -> None:
        selector = "serving.kserve.io/inferenceservice=tiny-green-kserve"
        kubectl = [str(plane.programs / "kubectl"), f"--kubeconfig={plane.kubeconfig}", f"--namespace={NAMESPACE}"]
        found = subprocess.run([*kubectl, "get", "pods", "-l", selector, "-o", "name"], capture_output=True, check=True)
        for pod in found.stdout.decode().split():
            subprocess.run([*kubectl, "delete", pod, "--grace-period=0", "--force"], check=True)

    report = await promoted(ask.for_model(1), Watching({"shift": evict}))
    assert report.error is not None
    assert report.error.exit_code == 9
    assert report.error.what.startswith("shift failed: ")
    await is_again(plane, NAMESPACE, before)


@pytest.mark.parametrize("stage", [Stage.DEPLOY, Stage.SHIFT])
async def test_a_process_that_is_killed_is_undone_by_the_next(
    ask: Ask, plane: ControlPlane, stage: Stage, tmp_path: Path
) -> None:
    before = await everything(plane, NAMESPACE)
    served = await answers_from(ask.cluster)
    known = len(await history_of(ask.cluster))
    command = [sys.executable, "-c", "from servepath.cli import main; main()", "promote"]
    options = {
        "modelcar": ask.laptop.modelcars[2],
        "kubeconfig": plane.kubeconfig,
        "registry": ask.cluster.registry,
        "repository": REPOSITORY,
        "gateway-url": ask.cluster.gateway_url,
        "gateway-class": ask.cluster.gateway_class,
        "engine-image": ask.standin.engine,
        "profile": "cpu-small",
        "namespace": NAMESPACE,
        "name": NAME,
        "served-model-name": "tiny",
        "expected-answer": "",
        "hold": 60,
        "blocks": 6,
        "requests-per-block": 1,
        "rate-per-s": 4,
        "prompt-tokens": 16,
        "output-tokens": 8,
        "budget-s": 5,
        "max-slowdown-percent": 1000,
    }
    command += [f"--{name}={value}" for name, value in options.items()] + ["--apply"]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ, start_new_session=True)  # noqa: ASYNC220
    try:
        with anyio.fail_after(90):
            while True:
                assert running.poll() is None, (tmp_path / "log").read_text()
                history = await history_of(ask.cluster)
                if len(history) > known and history[-1].record.stage is stage:
                    break
                await anyio.sleep(0.05)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    refused = ask.for_model(2, "--standin-crash-after-ms=1", lease=replace(QUICK, wait_s=60.0))
    report = await promoted(refused)
    assert report.error is not None
    assert report.promotion is not None
    assert [str(one).split(":")[0] for one in report.promotion.recovered] == [
        f"promotion {history[-1].record.number}, killed at {stage}"
    ]
    await is_again(plane, NAMESPACE, before)
    assert await answers_from(ask.cluster) == served


async def test_it_is_stopped_after_use_started_by_the_next_and_taken_away_without_what_is_not_ours(
    ask: Ask, plane: ControlPlane
) -> None:
    report = await promoted(ask.for_model(2, replace=True, stop_after=True))
    assert report.error is None, report.error
    assert await plane.kubectl("get", "pods", f"--namespace={NAMESPACE}", "--output=name") == ""
    report = await promoted(ask.for_model(1))
    assert report.error is None, report.error
    assert (await history_of(ask.cluster))[-1].record.strategy is Strategy.REPLACE, "nothing served that could go on"
    assert await answers_from(ask.cluster) == (200, digest(ask.for_model(1)))
    theirs = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "theirs", "namespace": NAMESPACE}}
    await plane.kubectl.apply([theirs])
    assert await find_orphans(ask.cluster, NAMESPACE) == ()
    await delete_canary(ask.cluster, NAMESPACE, NAME)
    await delete(ask.cluster, NAMESPACE, NAME)
    async with kubernetes(ask.cluster) as client:
        assert await inventory(client, NAMESPACE, NAME) == ()
        history = await read_history(client, NAMESPACE, NAME)
    assert history, "what was done stays written down"
    left = await everything(plane, NAMESPACE)
    assert "ConfigMap/theirs" in left
    assert await find_orphans(ask.cluster, NAMESPACE) == ()


async def test_an_api_server_that_is_started_again_ends_it_in_one_of_two_states(
    ask: Ask, plane: ControlPlane, layout: Layout, started_again: list[process.Process]
) -> None:
    assert (await promoted(ask.for_model(0))).error is None
    before = await everything(plane, NAMESPACE)
    served = await answers_from(ask.cluster)
    api = plane.processes[1]

    def restart() -> None:
        api.popen.kill()
        api.popen.wait()
        assert isinstance(api.popen.args, list)
        started_again.append(process._spawn("kube-apiserver-again", api.popen.args, layout.logs, {}))

    report = await promoted(ask.for_model(1), Watching({"shift": restart}))
    last = (await history_of(ask.cluster))[-1].record
    if report.error is None:
        assert last.state is State.SUCCEEDED
        assert await answers_from(ask.cluster) == (200, digest(ask.for_model(1)))
    else:
        assert report.error.exit_code in {5, 9}, report.error
        if not last.is_over:
            await recover_release(ask.cluster, NAMESPACE, NAME, ask.laptop.options, apply=True)
        await is_again(plane, NAMESPACE, before)
        assert await answers_from(ask.cluster) == served
