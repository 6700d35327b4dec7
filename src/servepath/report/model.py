"""The result of a run: everything that the report files are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.errors import ServepathError
from servepath.evidence import CheckResult, RunInfo, StageTiming, Verdict
from servepath.report.canary import canary_failures
from servepath.report.format import objective_name, objective_value

if TYPE_CHECKING:
    from servepath.bench.capacity import Sweep
    from servepath.bench.instrument import Instrument
    from servepath.bench.model import Comparison
    from servepath.bench.slo import SloResult
    from servepath.canary.model import CanaryResult
    from servepath.cluster.model import Cluster
    from servepath.lifecycle.model import Lifecycle
    from servepath.modelcar.model import Modelcar
    from servepath.promotion.evidence import Evidence
    from servepath.serving.model import Endpoint

SCHEMA = "servepath/v1"
EXIT_INTERRUPTED = 130
EXIT_INTERNAL = 1


@dataclass(frozen=True, slots=True)
class ReportError:
    """Why a run stopped: what failed, where, what was expected, the next command, and the exit code."""

    what: str
    where: str
    expected: str
    next_command: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Quote:
    """Lines of a file beside the report that tell why a run failed.

    Attributes:
        file: relative to the report directory.
        about: whose lines they are: a container, the events of a namespace.
        lines: the telling ones, in their order.
        line_count: how many lines the file has in all.
    """

    file: str
    about: str
    lines: tuple[str, ...]
    line_count: int


@dataclass(frozen=True, slots=True)
class Report:
    """One run. What a stopped run never learnt is None or empty.

    Attributes:
        run: what ran, and where.
        stages: in the order of their start.
        modelcar: the model that was built and pushed.
        cluster: the cluster it was deployed to.
        deployments: the paths that answered.
        checks: every smoke check.
        comparison: the benchmark.
        slo: the objectives, empty when the profile has none.
        sweep: what each path did at rising rates.
        instrument: what the load generator itself adds to a latency.
        lifecycle: what KServe gives and costs besides latency.
        canary: how a canary ended.
        promotion: what was promoted, and what became of it.
        quotes: the telling lines of a failed run's diagnostics.
        error: why the run stopped, None when it came to its end.
    """

    run: RunInfo
    stages: tuple[StageTiming, ...] = ()
    modelcar: Modelcar | None = None
    cluster: Cluster | None = None
    deployments: tuple[Endpoint, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    comparison: Comparison | None = None
    slo: tuple[SloResult, ...] = ()
    error: ReportError | None = None
    sweep: Sweep | None = None
    instrument: Instrument | None = None
    lifecycle: Lifecycle | None = None
    quotes: tuple[Quote, ...] = ()
    canary: CanaryResult | None = None
    promotion: Evidence | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """Every reason why the run is no pass, in words; empty for a pass."""
        reasons = [f"the run stopped: {self.error.what}"] if self.error else []
        reasons += [f"stage {stage.name} failed" for stage in self.stages if stage.verdict is Verdict.FAIL]
        reasons += [
            f"check {check.name} of {check.subject} failed" for check in self.checks if check.verdict is Verdict.FAIL
        ]
        reasons += [
            f"{objective_name(one.objective)} of {one.path}: {objective_value(one.objective, one.seen)}, "
            f"allowed {objective_value(one.objective, one.limit)}"
            for one in self.slo
            if not one.met
        ]
        if self.comparison:
            allowed = self.comparison.plan.max_error_rate
            reasons += [
                f"{summary.error_count} of {summary.request_count} requests of {summary.path} failed"
                for summary in self.comparison.summaries
                if summary.error_rate > allowed
            ]
        if self.canary:
            reasons += canary_failures(self.canary)
        if (
            not reasons
            and not (self.comparison or self.sweep or self.lifecycle or self.canary or self.promotion)
            and all(check.verdict is Verdict.SKIP for check in self.checks)
        ):
            reasons.append("nothing was checked and nothing was measured")
        return tuple(reasons)

    @property
    def verdict(self) -> Verdict:
        """`pass` only when nothing failed and something was shown."""
        return Verdict.FAIL if self.failures else Verdict.PASS


def report_error(error: BaseException) -> ReportError:
    """An exception as the report shows it.

    An interrupt has exit code 130, an error that is no ServepathError 1. Of a group, as task groups raise it, the first
    ServepathError counts, else the first member.
    """
    if isinstance(error, BaseExceptionGroup):
        known, _ = error.split(ServepathError)
        return report_error((known or error).exceptions[0])
    if isinstance(error, ServepathError):
        return ReportError(error.what, error.where, error.expected, error.next_command, error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return ReportError("interrupted", "", "", "", EXIT_INTERRUPTED)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ReportError(f"internal error, {text}", "", "", "", EXIT_INTERNAL)
