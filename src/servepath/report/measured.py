"""What was measured, as the plain values of `report.json`. Raw samples are not here: they are in `samples.json.zst`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from servepath.bench.capacity import Knee, Sweep, SweepPoint
    from servepath.bench.instrument import Instrument
    from servepath.bench.model import ClientHealth, Comparison, Distribution, PairedRatio, PathSummary, Sample
    from servepath.bench.slo import SloResult
    from servepath.lifecycle.model import Lifecycle

MAX_ERROR_EXAMPLES = 3


def comparison_values(comparison: Comparison) -> dict[str, Any]:
    """The paired comparison."""
    return {
        "headline": comparison.headline,
        "baseline": comparison.baseline,
        "stopped": comparison.stopped,
        "plan": asdict(comparison.plan),
        "order": comparison.order,
        "client": _client(comparison.client, len(comparison.samples)),
        "paths": [_summary(summary, comparison.samples) for summary in comparison.summaries],
        "ratios": [_ratio(ratio) for ratio in comparison.ratios],
        "sample_count": len(comparison.samples),
    }


def slo_values(results: Iterable[SloResult], summaries: Sequence[PathSummary]) -> list[dict[str, Any]]:
    """Objectives with what was seen, each with its unit and the number of values behind it."""
    return [
        {
            "path": one.path,
            "objective": one.objective,
            "unit": "s" if one.objective.endswith("_s") else "share",
            "limit": one.limit,
            "seen": one.seen,
            "sample_count": _objective_count(one, summaries),
            "met": one.met,
        }
        for one in results
    ]


def sweep_values(sweep: Sweep) -> dict[str, Any]:
    """The sweep: every rate that was tried, and where each path stopped to meet its objectives."""
    return {
        "slo": asdict(sweep.slo),
        "stopped": sweep.stopped,
        "plan": asdict(sweep.plan),
        "design": asdict(sweep.design),
        "knees": [_knee(knee, sweep.points) for knee in sweep.knees],
        "points": [
            {
                "path": point.path,
                "rate_per_s": point.rate_per_s,
                "block": point.block,
                "meets_slo": point.meets_slo,
                "saturated": point.saturated,
                "waiting_max_requests": point.waiting_max,
                "waiting_requests": point.waiting,
                "client": _client(point.client, point.summary.request_count),
                "summary": _summary(point.summary, [one for one in sweep.samples if one.block == point.block]),
                "slo": slo_values(point.slo, [point.summary]),
            }
            for point in sweep.points
        ],
        "sample_count": len(sweep.samples),
    }


def instrument_values(instrument: Instrument) -> dict[str, Any]:
    """What the load generator adds to a latency."""
    return {
        "points": [
            {
                "streams": one.streams,
                "request_count": one.request_count,
                "ttft_overhead_p50_s": one.ttft_overhead_p50_s,
                "ttft_overhead_p95_s": one.ttft_overhead_p95_s,
                "itl_overhead_p95_s": one.itl_overhead_p95_s,
                "e2e_overhead_p95_s": one.e2e_overhead_p95_s,
                "cpu_share": one.cpu_share,
                "tokens_per_s": one.tokens_per_s,
                "cpu_s": one.overheads.cpu_s,
                "wall_s": one.overheads.wall_s,
                "token_count": one.overheads.token_count,
            }
            for one in instrument.points
        ]
    }


def lifecycle_values(lifecycle: Lifecycle) -> dict[str, Any]:
    """What KServe gives and costs besides latency."""
    return {
        "measurements": [
            {
                "name": one.name,
                "subject": one.subject,
                "unit": one.unit,
                "value": one.value,
                "samples": one.samples,
                "sample_count": len(one.samples),
                "how": one.how,
            }
            for one in lifecycle.measurements
        ],
        "rollouts": [
            {
                "path": one.path,
                "strategy": one.strategy,
                "request_count": one.request_count,
                "failed_count": one.failed_count,
                "downtime_s": one.downtime_s,
                "duration_s": one.duration_s,
            }
            for one in lifecycle.rollouts
        ],
        "skipped": lifecycle.skipped,
    }


def _objective_count(one: SloResult, summaries: Sequence[PathSummary]) -> int:
    summary = next(summary for summary in summaries if summary.path == one.path)
    metric = one.objective.partition("_")[0]
    if one.objective == "error_rate":
        return summary.request_count
    return next((latency.sample_count for latency in summary.latencies if latency.metric == metric), 0)


def _knee(knee: Knee, points: Sequence[SweepPoint]) -> dict[str, Any]:
    at = next((one for one in points if (one.path, one.rate_per_s) == (knee.path, knee.rate_per_s)), None)
    return {
        "path": knee.path,
        "rate_per_s": knee.rate_per_s,
        "next_rate_per_s": knee.next_rate_per_s,
        "goodput_requests_per_s": knee.goodput_requests_per_s,
        "output_tokens_per_s": knee.output_tokens_per_s,
        "cost": asdict(knee.cost) if knee.cost else None,
        "request_count": at.summary.request_count if at else 0,
    }


def _client(client: ClientHealth, sample_count: int) -> dict[str, Any]:
    return {**asdict(client), "sample_count": sample_count}


def _summary(summary: PathSummary, samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "path": summary.path,
        "request_count": summary.request_count,
        "error_count": summary.error_count,
        "error_rate": summary.error_rate,
        "errors": summary.errors,
        "error_examples": _error_examples([one for one in samples if one.path == summary.path]),
        "latency": _latencies(summary.latencies),
        "loaded_s": summary.loaded_s,
        "output_tokens_per_s": summary.output_tokens_per_s,
        "completed_requests_per_s": summary.completed_requests_per_s,
        "goodput_requests_per_s": summary.goodput_requests_per_s,
        "prompt_tokens_mean": summary.prompt_tokens_mean,
        "completion_tokens_mean": summary.completion_tokens_mean,
        "content_chunks_mean": summary.content_chunks_mean,
    }


def _error_examples(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """The first few different failures, in full: a secret is only found in a text that was not cut."""
    seen = dict.fromkeys((str(one.error), one.error_detail) for one in samples if one.error is not None)
    return [{"class": error, "detail": detail} for error, detail in list(seen)[:MAX_ERROR_EXAMPLES]]


def _latencies(latencies: Iterable[Distribution]) -> dict[str, Any]:
    return {
        str(one.metric): {
            "sample_count": one.sample_count,
            "mean_s": one.mean_s,
            "p50_s": one.p50_s,
            "p95_s": one.p95_s,
            "p99_s": one.p99_s,
            "max_s": one.max_s,
        }
        for one in latencies
    }


def _ratio(ratio: PairedRatio) -> dict[str, Any]:
    return {
        "metric": ratio.metric,
        "statistic": ratio.statistic,
        "baseline": ratio.baseline,
        "path": ratio.path,
        "ratio": ratio.ratio,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "differs": ratio.differs,
        "detectable_percent": ratio.detectable_percent,
        "block_count": ratio.block_count,
        "block_ratios": ratio.block_ratios,
        "verdict": ratio.verdict,
    }
