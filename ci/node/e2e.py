"""The main job on the embedded node: prepare outside, where there is a network; do everything else inside the holder.

The two processes are tied by a pipe: when the outer one ends, however it ends, the inner one puts everything away.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from ci.node import envoy_gateway, holder, kserve, node
from ci.node.models import prepare_smollm2
from ci.node.prepared import Prepared, prepare, prepared
from ci.node.tiny_model import TINY_NAME, write_tiny_model
from servepath import e2e
from servepath.bench.model import Arrivals, BenchPlan
from servepath.cli.defaults import run_info
from servepath.errors import ClusterError
from servepath.evidence import StageTiming, Verdict
from servepath.modelcar.copy import push_layout
from servepath.modelcar.hub import download
from servepath.modelcar.source import open_source
from servepath.report.write import write_report
from servepath.serving.profiles import profile_named
from servepath.stages import Stages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ci.node.holder import Holder
    from ci.node.layout import Layout
    from servepath.report.model import Report
    from servepath.stages import StageObserver

T = TypeVar("T")

INNER_COMMAND = "e2e-inside"


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
    """

    report: str
    model: str
    source: str
    hub: str
    expected_answer: str
    profile: str
    keep: bool
    plan: BenchPlan


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
        choices = Choices(**{**fields["choices"], "plan": plan})
        return cls(**{**fields, "choices": choices, "stages": stages})


async def outside(layout: Layout, choices: Choices, observer: StageObserver) -> int:
    """Prepare, start a holder, do the rest in it, and end it unless it is to be kept.

    Returns:
        The exit code of the run.

    Raises:
        ServepathError: before the inner process could start.
    """
    origin_unix_s = time.time()
    stages = Stages(observer, origin_unix_s)
    if choices.source:
        with stages.stage("model check"):
            await anyio.to_thread.run_sync(open_source, Path(choices.source))
    ready = await prepare(layout, stages)
    with stages.stage("model files") as note:
        directory, served_model_name = await _model_files(layout, choices)
        note(directory.name)
    async with _held(layout, keep=choices.keep) as running:
        handover = layout.run / "handover.json"
        command = " ".join(["python -m ci.node", *sys.argv[1:]])
        Handover(choices, str(directory), served_model_name, command, origin_unix_s, stages.timings).write(handover)
        return await _run_tied(layout, running, handover, ready)


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


@asynccontextmanager
async def _held(layout: Layout, *, keep: bool) -> AsyncIterator[Holder]:
    """Start a holder; end it after the block unless it is to be kept."""
    running = await holder.start(layout)
    try:
        yield running
    finally:
        if not keep:
            with anyio.CancelScope(shield=True):
                await holder.stop(layout)


async def _run_tied(layout: Layout, running: Holder, handover: Path, ready: Prepared) -> int:
    """Run the inner process in a session of its own, tied to this one by its standard input.

    Ctrl-C reaches this process alone; the pipe's end then tells the inner one to stop, and it is waited for: it deletes
    what it deployed and writes the report.
    """
    command = holder.enter(running, [sys.executable, "-m", "ci.node", INNER_COMMAND, str(handover)])
    environment = {**os.environ, **node.environment(layout, ready.platform.kubernetes)}
    process = await anyio.open_process(
        command, stdin=subprocess.PIPE, stdout=None, stderr=None, env=environment, start_new_session=True
    )
    tie = process.stdin
    if tie is None:
        raise ClusterError("the inner process has no standard input", where="nsenter")
    try:
        return await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await tie.aclose()
            await process.wait()


async def inside(layout: Layout, handover: Handover, observer: StageObserver) -> Report:
    """Start the node and its platform, and do the whole job on it; stop when the outer process is gone.

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
        started = await _start(layout, stages)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            report = e2e.stopped_report(info, stages, error)
            await anyio.to_thread.run_sync(write_report, report, report_directory)
            await _keep_logs(layout, report_directory)
        raise
    try:
        report = await e2e.run(_request(started, handover), info, stages)
    except BaseException:
        await _keep_logs(layout, report_directory)
        raise
    if report.verdict is not Verdict.PASS:
        await _keep_logs(layout, report_directory)
    return report


async def tied_to_standard_input(work: Callable[[], Awaitable[T]]) -> T | None:
    """Run `work`; cancel it when standard input closes. Gives None then."""
    results: list[T] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await anyio.wait_readable(sys.stdin)
            group.cancel_scope.cancel()

        group.start_soon(watch)
        results.append(await work())
        group.cancel_scope.cancel()
    return results[0] if results else None


@dataclass(frozen=True, slots=True)
class _Started:
    """The node with KServe, the gateway and the engine's image."""

    node: node.Node
    gateway: envoy_gateway.Gateway
    engine_image: str


async def _start(layout: Layout, stages: Stages) -> _Started:
    """Start the node, then KServe, the gateway and the engine's push side by side: none needs another."""
    ready = await prepared(layout)
    with stages.stage("node") as note:
        running = await node.start(layout, ready.platform.kubernetes)
        note(running.address)
    gateways: list[envoy_gateway.Gateway] = []
    engines: list[str] = []

    async def start_kserve() -> None:
        with stages.stage("kserve"):
            await kserve.start(layout, running.plane, ready.platform.kserve)

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
    return _Started(running, gateways[0], engines[0])


def _request(started: _Started, handover: Handover) -> e2e.E2eRequest:
    choices = handover.choices
    return e2e.E2eRequest(
        kubeconfig=started.node.kubeconfig,
        registry=started.node.registry.address,
        base_image=started.node.busybox,
        engine_image=started.engine_image,
        profile=profile_named(choices.profile),
        report_directory=Path(choices.report),
        model_directory=Path(handover.model_directory),
        served_model_name=handover.served_model_name,
        expected_answer=choices.expected_answer,
        gateway_class=started.gateway.gateway_class,
        gateway_url=started.gateway.url,
        plan=choices.plan,
        keep=True,  # the whole node goes away, unless it is to be kept with what runs on it
    )


async def _keep_logs(layout: Layout, report_directory: Path) -> None:
    """Copy the logs of the node's programs beside the report."""
    target = report_directory / e2e.DIAGNOSTICS / "node"
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(partial(shutil.copytree, layout.logs, target, dirs_exist_ok=True))
