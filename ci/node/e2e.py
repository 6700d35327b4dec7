"""The main job on the embedded node: prepare outside, where there is a network; do everything else inside the holder.

The two processes are tied by a pipe: when the outer one ends, however it ends, the inner one puts everything away.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from ci.node import envoy_gateway, holder, kserve, node, upkeep
from ci.node.models import prepare_smollm2
from ci.node.prepared import prepare, prepared
from ci.node.tiny_model import TINY_NAME, write_tiny_model
from servepath import e2e
from servepath.bench.capacity import SweepDesign
from servepath.bench.model import Arrivals, BenchPlan
from servepath.cli.output import console_line
from servepath.cli.run_info import run_info
from servepath.cluster.model import Cluster
from servepath.errors import ClusterError
from servepath.evidence import StageTiming, Verdict
from servepath.lifecycle.measure import BRIEF_ROLLOUTS, LifecyclePlan
from servepath.measuring import LifecycleRequest
from servepath.modelcar.copy import push_layout
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.hub import HubOptions, download, parse_spec
from servepath.serving.profiles import profile_named
from servepath.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ci.node.layout import Layout
    from servepath.report.model import Report
    from servepath.stages import StageObserver

T = TypeVar("T")

INNER_COMMAND = "e2e-inside"
_PUT_AWAY_S = 300.0


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user chose.

    Attributes:
        report: where the report goes.
        model: `smollm2` or `tiny`, used when there is neither a source nor a Hub revision.
        source: a model directory, or empty.
        hub: `REPOSITORY@COMMIT`, or empty.
        expected_answer: a word of the answer to "The capital of France is", empty for a model that cannot know it.
        profile: what one engine may use.
        keep: leave the node up and both paths deployed.
        plan: the benchmark's design.
        sweep: the rates to try for the highest that meets the objectives, or None.
        lifecycle: also measure updates, stops, starts and the control plane.
    """

    report: str
    model: str
    source: str
    hub: str
    expected_answer: str
    profile: str
    keep: bool
    plan: BenchPlan
    sweep: SweepDesign | None = None
    lifecycle: bool = False


@dataclass(frozen=True, slots=True)
class Handover:
    """What the outer process tells the inner one: the choices, the model, the run's start and the stages so far."""

    choices: Choices
    model_directory: str
    served_model_name: str
    command: str
    origin_unix_s: float
    stages: tuple[StageTiming, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Handover:
        """Read what `write` wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        stages = tuple(StageTiming(**{**one, "verdict": Verdict(one["verdict"])}) for one in fields["stages"])
        plan = fields["choices"]["plan"]
        plan = BenchPlan(**{**plan, "arrivals": Arrivals(plan["arrivals"])})
        sweep = fields["choices"]["sweep"]
        if sweep is not None:
            sweep = SweepDesign(**{**sweep, "rates_per_s": tuple(sweep["rates_per_s"])})
        choices = Choices(**{**fields["choices"], "plan": plan, "sweep": sweep})
        return cls(**{**fields, "choices": choices, "stages": stages})


@dataclass(frozen=True, slots=True)
class Job:
    """What is left to do inside the holder.

    Attributes:
        handover: what the inner process is told.
        kubernetes: the folder of the Kubernetes programs.
    """

    handover: Handover
    kubernetes: Path


async def prepare_job(layout: Layout, choices: Choices, observer: StageObserver) -> Job:
    """Do all that needs a network.

    Raises:
        InputError: the report directory or the model is not usable; found before anything is built.
        ServepathError: something could not be prepared; the report has been written.
    """
    origin_unix_s = time.time()
    stages = Stages(observer, origin_unix_s)
    command = shlex.join(["python", "-m", "ci.node", *sys.argv[1:]])
    info = run_info(command)
    report_directory = Path(choices.report)
    await anyio.to_thread.run_sync(e2e.begin_report, info, report_directory)
    async with e2e.reporting(info, report_directory, lambda: stages.timings):
        if choices.source:
            with stages.stage("model check"):
                await anyio.to_thread.run_sync(open_source, Path(choices.source))
        if choices.hub:
            parse_spec(choices.hub)
        ready = await prepare(layout, stages)
        with stages.stage("model files") as note:
            directory, served_model_name = await _model_files(layout, choices)
            note(directory.name)
    handover = Handover(choices, str(directory), served_model_name, command, origin_unix_s, stages.timings)
    return Job(handover, ready.platform.kubernetes)


async def do_job(layout: Layout, job: Job) -> int:
    """Start a holder, do the job in it, and end it unless it is to be kept.

    Args:
        layout: the node's folders.
        job: what `prepare_job` gave.

    Returns:
        The exit code of the run.

    Raises:
        ClusterError: the holder did not start, or the inner process was killed; the report has been written.
    """
    handover = job.handover
    info, report_directory = run_info(handover.command), Path(handover.choices.report)
    reporting = partial(e2e.reporting, info, report_directory, lambda: handover.stages)
    async with reporting():
        running = await holder.start(layout)
    try:
        told = layout.run / "handover.json"
        handover.write(told)
        command = holder.enter(running, [sys.executable, "-m", "ci.node", INNER_COMMAND, str(told)])
        status = await run_tied(command, node.environment(layout, job.kubernetes))
        if status < 0:
            async with reporting():
                raise _killed(layout, -status)
        return status
    finally:
        if handover.choices.keep and holder.current(layout) == running:
            console_line("the node is left up; to end it: make down")
        else:
            with anyio.CancelScope(shield=True):
                await holder.give_up(layout, running)


def _killed(layout: Layout, number: int) -> ClusterError:
    return ClusterError(
        f"the process inside the node was killed by {signal.Signals(number).name}",
        where=str(layout.logs),
        expected="nobody ends it: neither the kernel for want of memory, nor a second run of this node",
        next_command="dmesg | tail",
    )


async def _tiny(cache: Path) -> Path:
    """Write the tiny random model, which takes milliseconds."""
    directory = cache / "models" / TINY_NAME
    await anyio.to_thread.run_sync(write_tiny_model, directory)
    return directory


MODELS = {"smollm2": prepare_smollm2, "tiny": _tiny}
"""Models that need no Hub: real weights from a package, and random ones for a fast run."""


async def _model_files(layout: Layout, choices: Choices) -> tuple[Path, str]:
    """Give the model's directory and the name that it is served under."""
    if choices.source:
        directory = Path(choices.source)
    elif choices.hub:
        directory = (await download(choices.hub)).directory
    else:
        directory = await MODELS[choices.model](layout.cache)
    source = await anyio.to_thread.run_sync(open_source, directory)
    name = choices.hub.partition("@")[0].rpartition("/")[2] or source.name
    return directory, re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"


async def run_tied(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a process in a session of its own, tied to this one by its standard input.

    Ctrl-C reaches this process alone. When this process is cancelled, or ends in whatever way, the other one reads the
    end of its standard input; see `tied_to_standard_input`. Cancelled, this one waits for it, but not for ever.

    Args:
        command: the command line.
        environment: variables on top of this process's own.

    Returns:
        Its exit code, or minus the number of the signal that killed it.
    """
    process = await anyio.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=None,
        stderr=None,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        return await process.wait()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_PUT_AWAY_S):
            if process.stdin is not None:
                await process.stdin.aclose()
            await process.wait()


async def tied_to_standard_input(work: Callable[[], Awaitable[T]]) -> T | None:
    """Run `work`; cancel it when standard input closes. Gives None then."""
    results: list[T] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await anyio.wait_readable(sys.stdin)
            console_line("told to stop: putting away what was started")
            group.cancel_scope.cancel()

        group.start_soon(watch)
        results.append(await work())
        group.cancel_scope.cancel()
    return results[0] if results else None


async def inside(layout: Layout, handover: Handover, observer: StageObserver) -> Report:
    """Start the node and its platform, and do the whole job on it.

    Returns:
        The report as written.

    Raises:
        ServepathError: the node could not be started; the report has been written.
    """
    choices = handover.choices
    stages = Stages(observer, handover.origin_unix_s, handover.stages)
    info = run_info(handover.command)
    report_directory = Path(choices.report)
    try:
        async with e2e.reporting(info, report_directory, lambda: stages.timings):
            started = await _start(layout, stages)
        report = await e2e.run(_request(started, handover), info, stages)
    except BaseException:
        await _keep_logs(layout, report_directory)
        raise
    if report.verdict is not Verdict.PASS:
        await _keep_logs(layout, report_directory)
    return report


@dataclass(frozen=True, slots=True)
class _Started:
    """The node with KServe, the gateway and the engine's image."""

    node: node.Node
    kserve: kserve.KServe
    gateway: envoy_gateway.Gateway
    engine_image: str


async def _start(layout: Layout, stages: Stages) -> _Started:
    """Start the node, then KServe, the gateway and the engine's push side by side: none needs another."""
    ready = await prepared(layout)
    with stages.stage("node") as note:
        running = await node.start(layout, ready.platform.kubernetes)
        note(running.address)
    services: list[kserve.KServe] = []
    gateways: list[envoy_gateway.Gateway] = []
    engines: list[str] = []

    async def start_kserve() -> None:
        with stages.stage("kserve"):
            services.append(await kserve.start(layout, running.plane, ready.platform.kserve))

    async def start_gateway() -> None:
        with stages.stage("gateway") as note:
            files = ready.platform.gateway
            gateways.append(await envoy_gateway.start(layout, running.plane, running.registry, files))
            note(gateways[0].url)

    async def push_engine() -> None:
        with stages.stage("engine push") as note:
            engines.append(await push_layout(ready.engine.layout, running.registry.address, "servepath/engine"))
            note(engines[0].rpartition("@")[2][:19])

    with stages.stage("gateway api"):
        await envoy_gateway.apply_gateway_api(running.plane, ready.platform.gateway)
    async with anyio.create_task_group() as group:
        group.start_soon(start_kserve)
        group.start_soon(start_gateway)
        group.start_soon(push_engine)
    return _Started(running, services[0], gateways[0], engines[0])


def _request(started: _Started, handover: Handover) -> e2e.E2eRequest:
    choices = handover.choices
    return e2e.E2eRequest(
        kubeconfig=started.node.kubeconfig,
        registry=started.node.registry.address,
        base_image=started.node.busybox,
        engine_image=started.engine_image,
        profile=profile_named(choices.profile),
        report_directory=Path(choices.report),
        # The outer process has downloaded it; named as a Hub revision, the modelcar says where it came from.
        model_directory=None if choices.hub else Path(handover.model_directory),
        hub=choices.hub,
        hub_options=HubOptions(offline=True),
        served_model_name=handover.served_model_name,
        expected_answer=choices.expected_answer,
        gateway_class=started.gateway.gateway_class,
        gateway_url=started.gateway.url,
        plan=choices.plan,
        sweep=choices.sweep,
        lifecycle=_lifecycle(started) if choices.lifecycle else None,
        keep=True,  # the whole node goes away, unless it is to be kept with what runs on it
    )


def _lifecycle(started: _Started) -> LifecycleRequest:
    """What is measured of the lifecycle, with what this node's owner alone can do."""
    cluster = Cluster(started.node.kubeconfig, started.node.registry.address, started.gateway.url)
    programs = {"KServe controller": started.kserve.running, "Envoy Gateway controller": started.gateway.running}
    plan = LifecyclePlan(rollouts=BRIEF_ROLLOUTS, memory_how=upkeep.MEMORY_HOW)
    return LifecycleRequest(plan, upkeep.evict, partial(upkeep.footprint, cluster, programs))


async def _keep_logs(layout: Layout, report_directory: Path) -> None:
    """Copy the logs of the node's programs beside the report, as far as that can be done."""
    target = report_directory / e2e.DIAGNOSTICS / "node"
    with anyio.CancelScope(shield=True):
        try:
            await anyio.to_thread.run_sync(partial(shutil.copytree, layout.logs, target, dirs_exist_ok=True))
        except OSError as error:
            console_line(f"the node's logs are in {layout.logs}: they could not be copied to {target}: {error}")
