"""From raw samples to a comparison.

Nothing here measures: the same samples give the same numbers, at any later time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from servepath.bench.crosscheck import token_notes
from servepath.bench.model import BenchPlan, ClientHealth, Comparison, Distribution, Metric, PathSummary, Statistic
from servepath.bench.pairing import paired_ratios, values_by_block
from servepath.bench.slo import meets_objectives
from servepath.bench.stats import percentile
from servepath.bench.wording import headline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.bench.model import Sample
    from servepath.bench.slo import Slo


def analyse(
    samples: Sequence[Sample],
    plan: BenchPlan,
    order: Sequence[tuple[str, ...]],
    *,
    names: Sequence[str],
    stopped: str = "",
) -> Comparison:
    """The comparison that these samples give.

    Args:
        samples: every request, warm-up excluded.
        plan: the design that was carried out.
        order: names of the paths in the order of each block.
        names: names of the paths, the baseline first.
        stopped: why the run took no further block, in words: it depends on the clock, so samples do not tell it.
    """
    baseline, *others = names
    values = values_by_block(samples)
    ratios = tuple(ratio for statistic in Statistic for ratio in paired_ratios(values, plan, statistic, names=names))
    client = client_health(samples, plan)
    summaries = tuple(summarise(name, [one for one in samples if one.path == name]) for name in names)
    finding = headline(ratios, client, plan, baseline=baseline, others=others)
    return Comparison(
        plan=plan,
        baseline=baseline,
        order=tuple(order),
        summaries=summaries,
        ratios=ratios,
        client=client,
        headline="; ".join([finding, *(note for summary in summaries for note in token_notes(summary, plan))]),
        samples=tuple(samples),
        stopped=stopped,
    )


def summarise(path: str, samples: Sequence[Sample], slo: Slo | None = None) -> PathSummary:
    """Percentiles, rates and errors of the samples of one path, and with objectives its goodput."""
    good = [sample for sample in samples if sample.ok]
    errors = Counter(str(sample.error) for sample in samples if sample.error is not None)
    seconds = loaded_s(samples)

    def per_s(count: int) -> float:
        return count / seconds if seconds else 0.0

    return PathSummary(
        path=path,
        request_count=len(samples),
        error_count=len(samples) - len(good),
        errors=dict(sorted(errors.items())),
        latencies=tuple(one for metric in Metric if (one := distribution(metric, good))),
        loaded_s=seconds,
        output_tokens_per_s=per_s(sum(sample.completion_tokens for sample in good)),
        completed_requests_per_s=per_s(len(good)),
        prompt_tokens_mean=_mean([sample.prompt_tokens for sample in good]),
        completion_tokens_mean=_mean([sample.completion_tokens for sample in good]),
        content_chunks_mean=_mean([len(sample.token_times_s) for sample in good]),
        goodput_requests_per_s=per_s(sum(meets_objectives(sample, slo) for sample in good)) if slo else None,
    )


def loaded_s(samples: Sequence[Sample]) -> float:
    """Seconds under load: the sum over the blocks of the time from the first intended send to the last end."""
    blocks: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        blocks[sample.block].append(sample)
    return sum(
        max(sample.end_s for sample in block) - min(sample.intended_s for sample in block) for block in blocks.values()
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


def client_health(samples: Sequence[Sample], plan: BenchPlan) -> ClientHealth:
    """How well the client kept its schedule."""
    lateness_s = [sample.lateness_s for sample in samples] or [0.0]
    p95_s = percentile(lateness_s, 95)
    return ClientHealth(
        lateness_p95_s=p95_s, lateness_max_s=max(lateness_s), kept_schedule=p95_s <= plan.max_lateness_p95_s
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
