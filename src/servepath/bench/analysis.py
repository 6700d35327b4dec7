"""From raw samples to a comparison.

Nothing here measures: the same samples give the same numbers, at any later time.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from servepath.bench.model import (
    MIN_BLOCKS,
    BenchPlan,
    ClientHealth,
    Comparison,
    Distribution,
    Metric,
    PairedRatio,
    PathSummary,
    Sample,
)
from servepath.bench.stats import RatioInterval, percentile, ratio_interval

if TYPE_CHECKING:
    from collections.abc import Sequence


def analyse(
    samples: Sequence[Sample], plan: BenchPlan, order: Sequence[tuple[str, ...]], *, names: Sequence[str]
) -> Comparison:
    """The comparison that these samples give.

    Args:
        samples: every request, warm-up excluded.
        plan: the design that was carried out.
        order: names of the paths in the order of each block.
        names: names of the paths, the baseline first.
    """
    baseline, *others = names
    confidence = 1 - (1 - plan.confidence) / (len(Metric) * len(others))
    ratios = tuple(
        ratio
        for path in others
        for metric in Metric
        if (ratio := paired_ratio(samples, metric, baseline=baseline, path=path, plan=plan, confidence=confidence))
    )
    client = client_health(samples, plan)
    return Comparison(
        plan=plan,
        baseline=baseline,
        order=tuple(order),
        summaries=tuple(summarise(name, [one for one in samples if one.path == name]) for name in names),
        ratios=ratios,
        client=client,
        headline=headline(ratios, client, plan, baseline=baseline, others=others),
        samples=tuple(samples),
    )


def summarise(path: str, samples: Sequence[Sample]) -> PathSummary:
    """Percentiles, rates and errors of the samples of one path."""
    good = [sample for sample in samples if sample.ok]
    errors = Counter(str(sample.error) for sample in samples if sample.error is not None)
    loaded_s = sum(
        max(sample.end_s for sample in samples if sample.block == block)
        - min(sample.intended_s for sample in samples if sample.block == block)
        for block in {sample.block for sample in samples}
    )
    return PathSummary(
        path=path,
        request_count=len(samples),
        error_count=len(samples) - len(good),
        errors=dict(sorted(errors.items())),
        latencies=tuple(one for metric in Metric if (one := distribution(metric, good))),
        loaded_s=loaded_s,
        output_tokens_per_s=sum(sample.completion_tokens for sample in good) / loaded_s if loaded_s else 0.0,
        completed_requests_per_s=len(good) / loaded_s if loaded_s else 0.0,
        prompt_tokens_mean=_mean([sample.prompt_tokens for sample in good]),
        completion_tokens_mean=_mean([sample.completion_tokens for sample in good]),
        content_chunks_mean=_mean([len(sample.token_times_s) for sample in good]),
    )


def distribution(metric: Metric, samples: Sequence[Sample]) -> Distribution | None:
    """Percentiles of one metric over successful samples, None without values."""
    values_s = [value for sample in samples for value in sample.values_s(metric)]
    if not values_s:
        return None
    return Distribution(
        metric=metric,
        sample_count=len(values_s),
        mean_s=_mean(values_s),
        p50_s=percentile(values_s, 50),
        p95_s=percentile(values_s, 95),
        p99_s=percentile(values_s, 99),
        max_s=max(values_s),
    )


def paired_ratio(  # noqa: PLR0913  # the six things that define one paired estimate
    samples: Sequence[Sample], metric: Metric, *, baseline: str, path: str, plan: BenchPlan, confidence: float
) -> PairedRatio | None:
    """`path` against `baseline`, None when fewer than `MIN_BLOCKS` blocks have values of both."""
    denominators = block_medians_s(samples, metric, baseline)
    numerators = block_medians_s(samples, metric, path)
    blocks = sorted(denominators.keys() & numerators.keys())
    if len(blocks) < MIN_BLOCKS:
        return None
    block_ratios = tuple(numerators[block] / denominators[block] for block in blocks)
    interval = ratio_interval(
        block_ratios, confidence=confidence, power=plan.power, resamples=plan.bootstrap_resamples, seed=plan.seed
    )
    return PairedRatio(
        metric=metric,
        baseline=baseline,
        path=path,
        ratio=interval.ratio,
        low=interval.low,
        high=interval.high,
        detectable_percent=interval.detectable_percent,
        block_count=len(blocks),
        block_ratios=block_ratios,
        verdict=verdict_text(interval, baseline=baseline, path=path),
    )


def block_medians_s(samples: Sequence[Sample], metric: Metric, path: str) -> dict[int, float]:
    """The median of each block in which the path has values, in seconds.

    A median of 0 (every token in one read) is no time and left out: a ratio to it means nothing.
    """
    values_s: dict[int, list[float]] = {}
    for sample in samples:
        if sample.path == path and sample.ok:
            values_s.setdefault(sample.block, []).extend(sample.values_s(metric))
    medians = {block: percentile(values, 50) for block, values in values_s.items() if values}
    return {block: median for block, median in medians.items() if median > 0}


def verdict_text(interval: RatioInterval, *, baseline: str, path: str) -> str:
    """The finding in words: a ratio with its interval, or what would have been found."""
    if interval.low <= 1.0 <= interval.high:
        return f"no difference found; a difference of {_percent(interval.detectable_percent)} would have been found"
    ratio, _, rest = _ratio(interval.ratio, interval.low, interval.high).partition(" ")
    return f"{path} is {ratio} {baseline} {rest}"


def client_health(samples: Sequence[Sample], plan: BenchPlan) -> ClientHealth:
    """How well the client kept its schedule."""
    lateness_s = [sample.lateness_s for sample in samples] or [0.0]
    p95_s = percentile(lateness_s, 95)
    return ClientHealth(
        lateness_p95_s=p95_s, lateness_max_s=max(lateness_s), kept_schedule=p95_s <= plan.max_lateness_p95_s
    )


def headline(
    ratios: Sequence[PairedRatio], client: ClientHealth, plan: BenchPlan, *, baseline: str, others: Sequence[str]
) -> str:
    """The finding in one line."""
    if not client.kept_schedule:
        return (
            f"not usable: the client sent its requests {client.lateness_p95_s * 1000:.0f} ms late (p95), "
            f"more than the {plan.max_lateness_p95_s * 1000:.0f} ms allowed"
        )
    return "; ".join(_finding([ratio for ratio in ratios if ratio.path == path], path, baseline) for path in others)


def _finding(ratios: Sequence[PairedRatio], path: str, baseline: str) -> str:
    if not ratios:
        return f"no ratio: fewer than {MIN_BLOCKS} blocks have answers of both {path} and {baseline}"
    different = [ratio for ratio in ratios if ratio.differs]
    if different:
        found = ", ".join(f"{ratio.metric.upper()} {_ratio(ratio.ratio, ratio.low, ratio.high)}" for ratio in different)
        same = " or ".join(ratio.metric.upper() for ratio in ratios if not ratio.differs)
        return f"{path} against {baseline}: {found}" + (f"; no difference found in {same}" if same else "")
    detectable = ", ".join(f"{_percent(ratio.detectable_percent)} in {ratio.metric.upper()}" for ratio in ratios)
    return f"no difference found between {path} and {baseline}; a difference of {detectable} would have been found"


def _ratio(ratio: float, low: float, high: float) -> str:
    digits = _ratio_digits(low, high)
    return f"{ratio:.{digits}f}x ({low:.{digits}f}-{high:.{digits}f})"


def _ratio_digits(low: float, high: float) -> int:
    """Two digits, three when two would hide that the interval excludes 1."""
    nearest = min(abs(math.log(low)), abs(math.log(high)))
    return 2 if nearest >= 0.005 else 3  # noqa: PLR2004  # half of the second digit


def _percent(value: float) -> str:
    return f"{value:.0f}%" if value >= 10 else f"{value:.1f}%"  # noqa: PLR2004


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
