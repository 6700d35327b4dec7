"""Service level objectives and their evaluation.

A CPU profile has none by default: its latencies say nothing of a GPU's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.bench.model import Metric
from servepath.bench.stats import percentile

if TYPE_CHECKING:
    from servepath.bench.model import Comparison, PathSummary, Sample


@dataclass(frozen=True, slots=True)
class Slo:
    """Upper bounds of the 95th percentiles, in seconds, and of the share of failed requests. None means no bound.

    The defaults are the product's objectives on one GPU, for at most 128 output tokens.
    """

    ttft_p95_s: float | None = 0.250
    itl_p95_s: float | None = 0.020
    e2e_p95_s: float | None = 1.5
    error_rate: float | None = 0.0


@dataclass(frozen=True, slots=True)
class SloResult:
    """One objective of one path: what was allowed and what was seen. `seen` is None when nothing was measured.

    `objective` names the quantity with its unit, such as `ttft_p95_s` or `error_rate`.
    """

    path: str
    objective: str
    limit: float
    seen: float | None
    met: bool


def evaluate(comparison: Comparison, slo: Slo) -> tuple[SloResult, ...]:
    """Every objective of every path; an objective without a measurement is missed."""
    return tuple(one for summary in comparison.summaries for one in evaluate_path(summary, slo))


def evaluate_path(summary: PathSummary, slo: Slo) -> tuple[SloResult, ...]:
    """Every objective of one path; an objective without a measurement is missed."""
    return tuple(
        SloResult(
            path=summary.path,
            objective=objective,
            limit=limit,
            seen=seen,
            met=seen is not None and seen <= limit,
        )
        for objective, limit, seen in _objectives(summary, slo)
        if limit is not None
    )


def meets_objectives(sample: Sample, slo: Slo) -> bool:
    """Whether one request met every latency objective alone; a failed one did not.

    Its time to first token and to its end are held against the bounds of the percentiles, and so is the 95th percentile
    of its own gaps between tokens. A request of a single token has no gap that could be too long.
    """
    if not sample.ok:
        return False
    bounds = ((Metric.TTFT, slo.ttft_p95_s), (Metric.ITL, slo.itl_p95_s), (Metric.E2E, slo.e2e_p95_s))
    return all(
        percentile(values_s, 95) <= bound
        for metric, bound in bounds
        if bound is not None and (values_s := sample.values_s(metric))
    )


def _objectives(summary: PathSummary, slo: Slo) -> tuple[tuple[str, float | None, float | None], ...]:
    def p95_s(metric: Metric) -> float | None:
        latency = summary.latency(metric)
        return latency.p95_s if latency else None

    return (
        ("ttft_p95_s", slo.ttft_p95_s, p95_s(Metric.TTFT)),
        ("itl_p95_s", slo.itl_p95_s, p95_s(Metric.ITL)),
        ("e2e_p95_s", slo.e2e_p95_s, p95_s(Metric.E2E)),
        ("error_rate", slo.error_rate, summary.error_rate),
    )
