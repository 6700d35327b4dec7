"""The measuring stages of a run, each a function from what is deployed to what was measured."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.bench.compare import compare
from servepath.bench.instrument import measure_instrument
from servepath.bench.sweep import sweep as sweep_rates
from servepath.errors import ClusterError
from servepath.lifecycle.measure import measure_lifecycle
from servepath.serving.direct import direct_endpoint
from servepath.serving.model import ServingPath

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servepath.bench.capacity import Sweep, SweepDesign
    from servepath.bench.compare import BenchProgress
    from servepath.bench.instrument import Instrument
    from servepath.bench.model import BenchPlan, Comparison
    from servepath.bench.slo import Slo
    from servepath.bench.sweep import SweepProgress
    from servepath.cluster.model import Cluster
    from servepath.lifecycle.footprint import Footprint
    from servepath.lifecycle.measure import Evict, LifecyclePlan
    from servepath.lifecycle.model import Lifecycle
    from servepath.serving.model import Endpoint, ServingSpec
    from servepath.stages import Stages

BASELINE = ServingPath.RAW
DIRECT = f"{ServingPath.KSERVE}-direct"
"""KServe's path past the gateway: what is left of a difference is not the gateway's."""


@dataclass(frozen=True, slots=True)
class LifecycleRequest:
    """What of the lifecycle is measured.

    Attributes:
        plan: what, and how often.
        evict: takes an image off the node, None where nobody can.
        footprint: what the control plane uses, None to ask the kubelets.
    """

    plan: LifecyclePlan
    evict: Evict | None = None
    footprint: Footprint | None = None


async def instrument(stages: Stages) -> Instrument:
    """Measure what the load generator itself adds to a latency, on this machine and now."""
    with stages.stage("instrument") as note:
        measured = await measure_instrument()
        most = measured.points[-1]
        note(f"adds {1e3 * most.ttft_overhead_p95_s:.1f} ms to TTFT p95 at {most.streams} streams")
        return measured


async def bench(
    stages: Stages, cluster: Cluster, endpoints: Mapping[ServingPath, Endpoint], plan: BenchPlan
) -> Comparison:
    """Measure both paths in interleaved blocks, and KServe's past the gateway as well where it is reachable."""

    def show(progress: BenchProgress) -> None:
        note(f"{progress.step}, {progress.done_requests} of {progress.total_requests} requests")

    with stages.stage("bench") as note:
        named = {str(path): endpoints[path] for path in (BASELINE, ServingPath.KSERVE)}
        not_direct = ""
        try:
            named[DIRECT] = await direct_endpoint(cluster, endpoints[ServingPath.KSERVE])
        except ClusterError as error:
            not_direct = f"; {DIRECT} was not measured: {error.where}: {error.what}"
        comparison = await compare(named, plan, show)
        note(comparison.headline + not_direct)
        return comparison


async def engines_of(cluster: Cluster, endpoints: Mapping[ServingPath, Endpoint]) -> dict[str, Endpoint]:
    """Give the engines past their gateway, which may hide their metrics; one that is not reachable is left out."""
    engines = {}
    for path, endpoint in endpoints.items():
        with suppress(ClusterError):
            engines[str(path)] = await direct_endpoint(cluster, endpoint)
    return engines


async def sweep(  # noqa: PLR0913, PLR0917 - where, what and how
    stages: Stages,
    cluster: Cluster,
    endpoints: Mapping[ServingPath, Endpoint],
    plan: BenchPlan,
    slo: Slo,
    design: SweepDesign,
) -> Sweep:
    """Look for the highest rate at which each path meets the objectives."""

    def show(progress: SweepProgress) -> None:
        point = progress.point
        met = "met" if point.meets_slo else "missed"
        note(f"{point.path} at {point.rate_per_s:g}/s: objectives {met}; {progress.elapsed_s:.0f} s")

    with stages.stage("sweep") as note:
        named = {str(path): endpoints[path] for path in (BASELINE, ServingPath.KSERVE)}
        measured = await sweep_rates(named, plan, slo, design, show, engines=await engines_of(cluster, endpoints))
        knees = [
            f"{knee.path} {'none' if knee.rate_per_s is None else f'{knee.rate_per_s:g}/s'}" for knee in measured.knees
        ]
        note(f"highest rate that meets the objectives: {', '.join(knees)}")
        return measured


async def lifecycle(stages: Stages, cluster: Cluster, spec: ServingSpec, request: LifecycleRequest) -> Lifecycle:
    """Measure what KServe gives and costs besides latency."""
    with stages.stage("lifecycle") as note:
        measured = await measure_lifecycle(
            cluster, spec, request.plan, evict=request.evict, footprint=request.footprint, progress=note
        )
        failed = ", ".join(
            f"{one.path} {one.strategy} {one.failed_count} of {one.request_count}" for one in measured.rollouts
        )
        skipped = "".join(f"; not measured: {reason}" for reason in measured.skipped)
        note(f"failed requests of an update: {failed}{skipped}")
        return measured
