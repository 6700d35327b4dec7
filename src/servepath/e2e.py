"""The whole job: one model becomes a modelcar, is served on both paths, checked, compared and reported.

A run that fails or is interrupted still writes its report, with the cluster's logs, events and objects beside it, and
it deletes what it deployed.
"""

from __future__ import annotations

import resource
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from secrets import token_urlsafe
from typing import TYPE_CHECKING

import anyio

from servepath import measuring
from servepath.bench.model import BenchPlan
from servepath.bench.prompts import tokenizer_of
from servepath.bench.slo import Slo, evaluate
from servepath.canary.model import Outcome
from servepath.checks.context import CheckContext
from servepath.checks.run import smoke
from servepath.cluster.client import read_kubeconfig
from servepath.cluster.connect import connect
from servepath.cluster.diagnostics import collect
from servepath.cluster.facts import node_facts
from servepath.cluster.model import Cluster
from servepath.errors import (
    CheckFailedError,
    InputError,
    PromotionRolledBackError,
    SloMissedError,
    first_servepath_error,
)
from servepath.evidence import CheckResult, RunInfo, StageTiming, Verdict
from servepath.modelcar.build import build_and_push
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.push.transfers import Transfers
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.hub import HubOptions, download
from servepath.platform import checking
from servepath.report.diagnostics import read_quotes
from servepath.report.model import EXIT_INTERNAL, Report, ReportError, report_error
from servepath.report.write import load_report, write_report
from servepath.serving.deploy import delete, deploy_kserve, deploy_raw
from servepath.serving.model import Endpoint, Profile, ServingPath, ServingSpec
from servepath.serving.refusals import refuse_unpinned
from servepath.serving.render import check_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from servepath.bench.capacity import SweepDesign
    from servepath.modelcar.model import Modelcar, ModelSource, Progress
    from servepath.stages import Stages

_ORDER = (ServingPath.RAW, ServingPath.KSERVE)
"""Raw is the baseline of the comparison."""

DIAGNOSTICS = "diagnostics"
"""The folder beside the report where a failed run leaves logs, events and objects."""


@dataclass(frozen=True, slots=True)
class E2eRequest:
    """What to prove, and where.

    Attributes:
        kubeconfig: the cluster; its current context is never changed.
        registry: `host[:port]` that both servepath and the nodes reach.
        base_image: what the modelcar is built on, `repository@sha256:…` or `oci:DIRECTORY`.
        engine_image: the engine of both paths, `host/repository@sha256:…`.
        profile: what one engine may use.
        report_directory: where the report goes.
        model_directory: the model, or None to take it from the Hub.
        hub: `REPOSITORY@COMMIT`, used when there is no directory.
        hub_options: how the Hub is talked to.
        served_model_name: the `model` of the OpenAI API.
        expected_answer: a word of the answer to "The capital of France is", empty for a model that cannot know.
        repository: the modelcar's repository in the registry.
        namespace: where both paths are deployed.
        name: base name of the deployed objects.
        gateway_class: the GatewayClass that the cluster's Gateway has.
        gateway_url: the gateway's base URL, empty to read the Gateway's status.
        context: a context of the kubeconfig, empty for its current one.
        build: how the modelcar is made.
        plan: the benchmark's design.
        slo: the objectives, None for none.
        sweep: the rates to try for the highest that meets the objectives (the default ones without `slo`), or None.
        lifecycle: what is measured of starts, stops and updates, None for nothing.
        keep: leave what was deployed.
    """

    kubeconfig: Path
    registry: str
    base_image: str
    engine_image: str
    profile: Profile
    report_directory: Path
    model_directory: Path | None = None
    hub: str = ""
    hub_options: HubOptions | None = None
    served_model_name: str = "model"
    expected_answer: str = "Paris"
    repository: str = "servepath/model"
    namespace: str = "servepath"
    name: str = "model"
    gateway_class: str = "agentgateway"
    gateway_url: str = ""
    context: str = ""
    build: BuildOptions = field(default_factory=BuildOptions)
    plan: BenchPlan = field(default_factory=BenchPlan)
    slo: Slo | None = None
    sweep: SweepDesign | None = None
    lifecycle: measuring.LifecycleRequest | None = None
    keep: bool = False


async def run(request: E2eRequest, info: RunInfo, stages: Stages) -> Report:
    """Do the whole job and write its report.

    Args:
        request: what to prove, and where.
        info: what is running, for the report.
        stages: the clock of the run; stages of an earlier process are in it already.

    Returns:
        The report as written. An error of servepath is in it, not raised: its exit code is the run's.

    Raises:
        InputError: the report directory cannot be written; found before anything is done, too.
        BaseException: whatever else ended the run, cancellation included; the report has been written.
    """
    await anyio.to_thread.run_sync(begin_report, info, request.report_directory)
    job = _Job(request, stages, Report(info))
    await job.attempt(job.work)
    with anyio.CancelScope(shield=True):
        await job.attempt(job.diagnose)
        await job.attempt(job.delete)
        peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        run_info = replace(job.report.run, peak_memory_bytes=peak_memory_bytes)
        report = replace(job.report, run=run_info, stages=stages.timings)
        await anyio.to_thread.run_sync(_write, report, request.report_directory)
    if job.ended_by is not None and first_servepath_error(job.ended_by) is None:
        raise job.ended_by
    return report


def exit_code_of(report: Report) -> int:
    """Give a run's exit code: of the error that ended it, 9 rolled back, 6 a check failed, 7 an objective missed."""
    if report.error is not None:
        return report.error.exit_code
    if report.verdict is Verdict.PASS:
        return 0
    if report.canary is not None and report.canary.outcome is Outcome.ROLLED_BACK:
        return PromotionRolledBackError.exit_code
    is_check = report.comparison is None or any(check.verdict is Verdict.FAIL for check in report.checks)
    return CheckFailedError.exit_code if is_check else SloMissedError.exit_code


def begin_report(info: RunInfo, directory: Path) -> None:
    """Write a report that says that the run has not ended: a run that is killed leaves no `pass` of an earlier one.

    The diagnostics of an earlier run go away with its report; a folder of that name beside no report is left alone.

    Raises:
        InputError: the directory cannot be written.
    """
    error = ReportError(
        "the run has not come to its end",
        where="",
        expected="the report of a run that ended: this one is under way, or was killed",
        next_command="",
        exit_code=EXIT_INTERNAL,
    )
    if _holds_report(directory):
        shutil.rmtree(directory / DIAGNOSTICS, ignore_errors=True)
    write_report(Report(info, error=error), directory)


def _holds_report(directory: Path) -> bool:
    try:
        load_report(directory)
    except InputError:
        return False
    return True


@asynccontextmanager
async def reporting(
    info: RunInfo, directory: Path, stages: Callable[[], tuple[StageTiming, ...]] = tuple
) -> AsyncIterator[None]:
    """Write the report of what ends in this block by an error; the error goes on.

    Args:
        info: what is running.
        directory: where the report goes.
        stages: gives the stages that are over by then.
    """
    try:
        yield
    except BaseException as error:
        report = Report(info, stages=stages(), error=_reported(error))
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_write, report, directory)
        raise


def _reported(error: BaseException) -> ReportError:
    """An end of a run as its report shows it; cancellation is how Ctrl-C arrives here."""
    known = first_servepath_error(error)
    if known is None and isinstance(error, anyio.get_cancelled_exc_class()):
        return report_error(KeyboardInterrupt())
    return report_error(known or error)


def _write(report: Report, directory: Path) -> None:
    """Write the report; where that fails, what had ended the run is not lost."""
    try:
        write_report(report, directory)
    except InputError as error:
        if report.error is None:
            raise
        raise InputError(
            f"{error.what}; the run had stopped before: {report.error.what}",
            where=error.where,
            expected=error.expected,
            next_command=error.next_command,
        ) from error


@dataclass(slots=True)
class _Job:
    """One run under way.

    Attributes:
        request: what to prove, and where.
        stages: the clock.
        report: what it has learnt so far, so that a run that stops reports as much.
        cluster: where there may be something to delete, None before it was found.
        spec: what is deployed there.
        ended_by: the first thing that went wrong.
    """

    request: E2eRequest
    stages: Stages
    report: Report
    cluster: Cluster | None = None
    spec: ServingSpec | None = None
    ended_by: BaseException | None = None

    async def attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; what ends it is kept, and is the run's own error only when that had none before."""
        try:
            await step()
        except BaseException as error:  # noqa: BLE001 - every end of a run is reported, then raised again
            if self.ended_by is None:
                self.ended_by = error
                self.report = replace(self.report, error=_reported(error))

    async def work(self) -> None:
        """Take every stage in order; the two paths are deployed side by side, since an engine's start dominates."""
        self.refuse()
        source = await self.open_model()
        modelcar = await self.push(source)
        cluster = await self.connect()
        spec = self.specify(modelcar)
        async with anyio.create_task_group() as group:
            group.start_soon(self.deploy, "deploy raw", partial(deploy_raw, cluster, spec, token_urlsafe(32)))
            group.start_soon(self.deploy, "deploy kserve", partial(deploy_kserve, cluster, spec, token_urlsafe(32)))
        endpoints = {ServingPath(endpoint.path): endpoint for endpoint in self.report.deployments}
        await self.smoke(cluster, spec, endpoints)
        await self.measure(cluster, spec, endpoints)

    def refuse(self) -> None:
        """Refuse what could not be deployed before gigabytes are pushed.

        Raises:
            UsageError: a name is no DNS label, or the engine is not pinned.
            ClusterError: the kubeconfig is not usable.
        """
        request = self.request
        check_names(request.namespace, request.name)
        refuse_unpinned(request.engine_image, where="engine image")
        read_kubeconfig(Cluster(request.kubeconfig, request.registry, request.gateway_url, context=request.context))

    async def open_model(self) -> ModelSource:
        """Validate the model, downloading it first where it comes from the Hub."""
        with self.stages.stage("model") as note:
            directory = self.request.model_directory
            if directory is None:
                source = await download(self.request.hub, self.request.hub_options)
            else:
                source = await anyio.to_thread.run_sync(open_source, directory)
            note(f"{source.name}, {source.parameters / 1e6:.0f} M parameters, {source.dtype}")
            return source

    async def push(self, source: ModelSource) -> Modelcar:
        """Build the modelcar and push it."""
        request = self.request

        transfers = Transfers()

        def show(progress: Progress) -> None:
            transfers.update(progress)
            note(str(transfers))

        with self.stages.stage("modelcar") as note:
            modelcar = await build_and_push(
                source,
                request.base_image,
                request.registry,
                request.repository,
                build=request.build,
                progress=show,
            )
            self.report = replace(self.report, modelcar=modelcar)
            size_mb, sent_mb = modelcar.size_bytes / 1e6, modelcar.sent_bytes / 1e6
            note(f"{modelcar.digest[:19]}, {len(modelcar.layers)} layers, {size_mb:.0f} MB, {sent_mb:.0f} MB sent")
            return modelcar

    async def connect(self) -> Cluster:
        """Find the gateway, and check that the platform is what both paths need."""
        request = self.request
        with self.stages.stage("platform") as note:
            cluster = await connect(
                request.kubeconfig,
                request.registry,
                request.gateway_class,
                gateway_url=request.gateway_url,
                context=request.context,
            )
            self.cluster = cluster
            node = await node_facts(cluster)
            self.report = replace(self.report, cluster=cluster, run=replace(self.report.run, node=node))
            results = await checking.check(cluster)
            self.add_checks(results)
            failed = [result for result in results if result.verdict is Verdict.FAIL]
            if failed:
                raise CheckFailedError(
                    f"{failed[0].name}: {failed[0].seen}",
                    where="platform",
                    expected=failed[0].expected,
                    next_command=failed[0].next_command,
                )
            note(f"{len(results)} checks, gateway {cluster.gateway_url} of class {cluster.gateway_class}")
            return cluster

    def specify(self, modelcar: Modelcar) -> ServingSpec:
        """Say what both paths serve: the same model on the same engine."""
        request = self.request
        self.spec = ServingSpec(
            namespace=request.namespace,
            name=request.name,
            served_model_name=request.served_model_name,
            modelcar_reference=modelcar.reference,
            engine_image=request.engine_image,
            profile=request.profile,
        )
        return self.spec

    async def deploy(self, stage: str, deploy: Callable[[], Awaitable[Endpoint]]) -> None:
        """Deploy one path and await its first completion."""
        with self.stages.stage(stage) as note:
            endpoint = await deploy()
            deployments = sorted((*self.report.deployments, endpoint), key=lambda one: _ORDER.index(one.path))
            self.report = replace(self.report, deployments=tuple(deployments))
            note(f"first completion after {endpoint.ready_s:.0f} s")

    async def smoke(self, cluster: Cluster, spec: ServingSpec, endpoints: dict[ServingPath, Endpoint]) -> None:
        """Run every smoke check of both paths."""
        context = CheckContext(
            cluster=cluster,
            spec=spec,
            modelcar_digest=spec.modelcar_reference.partition("@")[2],
            raw=endpoints[ServingPath.RAW],
            kserve=endpoints[ServingPath.KSERVE],
            expected_answer=self.request.expected_answer,
        )

        def show(result: CheckResult) -> None:
            note(f"{result.subject} {result.name}")

        with self.stages.stage("smoke") as note:
            results = await smoke(context, show)
            self.add_checks(results)
            failed = [f"{result.subject} {result.name}" for result in results if result.verdict is Verdict.FAIL]
            note(f"{len(results)} checks" + (f", failed: {', '.join(failed)}" if failed else ""))

    async def measure(self, cluster: Cluster, spec: ServingSpec, endpoints: dict[ServingPath, Endpoint]) -> None:
        """Measure the client, both paths, and, where it was asked for, the lifecycle; each is kept as soon as it is."""
        request, stages = self.request, self.stages
        self.report = replace(self.report, instrument=await measuring.instrument(stages))
        plan = self.planned()
        comparison = await measuring.bench(stages, cluster, endpoints, plan)
        slo = evaluate(comparison, request.slo) if request.slo else ()
        self.report = replace(self.report, comparison=comparison, slo=slo)
        if request.sweep is not None:
            sweep = await measuring.sweep(stages, cluster, endpoints, plan, request.slo or Slo(), request.sweep)
            self.report = replace(self.report, sweep=sweep)
        if request.lifecycle is not None:
            lifecycle = await measuring.lifecycle(stages, cluster, spec, request.lifecycle)
            self.report = replace(self.report, lifecycle=lifecycle)

    def planned(self) -> BenchPlan:
        """Give the plan, with prompts of exact length by the model's own tokenizer where nothing else was said."""
        plan, modelcar = self.request.plan, self.report.modelcar
        if plan.tokenizer_path or modelcar is None:
            return plan
        return replace(plan, tokenizer_path=tokenizer_of(modelcar.source.directory))

    def add_checks(self, results: tuple[CheckResult, ...]) -> None:
        """Keep results for the report."""
        self.report = replace(self.report, checks=(*self.report.checks, *results))

    async def diagnose(self) -> None:
        """Keep what a failed run needs to be understood."""
        if self.cluster is not None and self.spec is not None and self.report.failures:
            with self.stages.stage("diagnostics"):
                directory = self.request.report_directory
                await collect(self.cluster, self.spec.namespace, directory / DIAGNOSTICS)
                quotes = await anyio.to_thread.run_sync(read_quotes, directory, DIAGNOSTICS)
                self.report = replace(self.report, quotes=quotes)

    async def delete(self) -> None:
        """Delete what was deployed, unless it is to be kept."""
        if self.cluster is not None and self.spec is not None and not self.request.keep:
            with self.stages.stage("delete"):
                await delete(self.cluster, self.spec.namespace, self.spec.name)
