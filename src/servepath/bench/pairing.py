"""Paired ratios: what one path's latency is of the other's, block by block, with a joint interval over the blocks.

The unit is the block: both paths were loaded in it one after the other, so what the machine did then is in both and
leaves the ratio. A 95th percentile needs more values than a short block has (of two requests it is the slower one), so
for it consecutive blocks are joined until every unit has `MIN_P95_VALUES` values of both paths. Which blocks are joined
depends on the number of values alone, never on the values, and both paths are joined alike: the ratio of a path to
itself stays symmetric around 1, which is what the interval's coverage rests on.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from servepath.bench.model import MIN_BLOCKS, BenchPlan, Metric, PairedRatio, Sample, Statistic
from servepath.bench.stats import percentile, ratio_interval
from servepath.bench.wording import verdict_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MIN_P95_VALUES = 20
"""Fewer values have no 95th percentile: it would be their maximum."""

PERCENTS = {Statistic.MEDIAN: 50.0, Statistic.P95: 95.0}
ERROR_SHARES = {Statistic.MEDIAN: 0.8, Statistic.P95: 0.2}
"""Who may be wrong: medians decide, so most of the error that the plan allows is theirs; together it is all of it."""
MIN_VALUES = {Statistic.MEDIAN: 1, Statistic.P95: MIN_P95_VALUES}


@dataclass(frozen=True, slots=True)
class BlockValues:
    """The values of one metric in one block, in seconds: of the baseline and of the path that is compared with it."""

    baseline_s: tuple[float, ...]
    path_s: tuple[float, ...]


ValuesByBlock: TypeAlias = "Mapping[tuple[str, Metric, int], Sequence[float]]"
"""The values of successful requests, by path, metric and block, in seconds."""


def paired_ratios(
    values: ValuesByBlock, plan: BenchPlan, statistic: Statistic, *, names: Sequence[str]
) -> tuple[PairedRatio, ...]:
    """One statistic of every metric of every path against the baseline, the first of the names.

    The intervals of both statistics hold jointly with `plan.confidence` (Bonferroni, with `ERROR_SHARES`): a path
    against itself gives no difference in any of them in at least that share of runs. Ratios that too few blocks have
    values for are left out.
    """
    baseline, *others = names
    confidence = 1 - (1 - plan.confidence) * ERROR_SHARES[statistic] / (len(Metric) * len(others))
    ratios = (
        _paired_ratio(
            values_of_both(values, metric, baseline, path),
            plan,
            confidence,
            PairedSubject(metric, statistic, baseline, path),
        )
        for path in others
        for metric in Metric
    )
    return tuple(ratio for ratio in ratios if ratio)


@dataclass(frozen=True, slots=True)
class PairedSubject:
    """What is compared: a statistic of a metric of one path, against the same of the baseline."""

    metric: Metric
    statistic: Statistic
    baseline: str
    path: str


def _paired_ratio(
    blocks: Sequence[BlockValues], plan: BenchPlan, confidence: float, subject: PairedSubject
) -> PairedRatio | None:
    units = unit_ratios(blocks, subject.statistic)
    if len(units) < MIN_BLOCKS:
        return None
    interval = ratio_interval(
        units, confidence=confidence, power=plan.power, resamples=plan.bootstrap_resamples, seed=plan.seed
    )
    return PairedRatio(
        metric=subject.metric,
        baseline=subject.baseline,
        path=subject.path,
        ratio=interval.ratio,
        low=interval.low,
        high=interval.high,
        detectable_percent=interval.detectable_percent,
        block_count=len(units),
        block_ratios=units,
        verdict=verdict_text(interval, baseline=subject.baseline, path=subject.path),
        statistic=subject.statistic,
    )


def values_by_block(samples: Iterable[Sample]) -> ValuesByBlock:
    """The values of the successful among these requests."""
    values: dict[tuple[str, Metric, int], list[float]] = defaultdict(list)
    for sample in samples:
        if sample.ok:
            for metric in Metric:
                values[sample.path, metric, sample.block].extend(sample.values_s(metric))
    return values


def values_of_both(values: ValuesByBlock, metric: Metric, baseline: str, path: str) -> tuple[BlockValues, ...]:
    """The blocks in which both paths have values, in their order."""
    blocks = sorted({block for _, _, block in values})
    both = (
        BlockValues(tuple(values.get((baseline, metric, block), ())), tuple(values.get((path, metric, block), ())))
        for block in blocks
    )
    return tuple(one for one in both if one.baseline_s and one.path_s)


def unit_ratios(blocks: Sequence[BlockValues], statistic: Statistic) -> tuple[float, ...]:
    """The ratio of the statistic in each unit: a block for the median, as many as it takes for the 95th percentile.

    A statistic of 0 (every token in one read) is no time, and its unit is left out: a ratio to it means nothing.
    """
    percent = PERCENTS[statistic]
    both = (
        (percentile(unit.path_s, percent), percentile(unit.baseline_s, percent))
        for unit in joined(blocks, MIN_VALUES[statistic])
    )
    return tuple(path_s / baseline_s for path_s, baseline_s in both if path_s > 0 and baseline_s > 0)


def unit_values_s(blocks: Sequence[BlockValues], statistic: Statistic) -> tuple[float, ...]:
    """The statistic of the baseline in each unit, in seconds, without those that are 0."""
    values = (percentile(unit.baseline_s, PERCENTS[statistic]) for unit in joined(blocks, MIN_VALUES[statistic]))
    return tuple(value for value in values if value > 0)


def joined(blocks: Sequence[BlockValues], min_values: int) -> tuple[BlockValues, ...]:
    """Consecutive blocks joined until each unit has enough values of both paths; a rest joins the last unit."""
    units: list[BlockValues] = []
    rest = BlockValues((), ())
    for block in blocks:
        rest = _join(rest, block)
        if min(len(rest.baseline_s), len(rest.path_s)) >= min_values:
            units.append(rest)
            rest = BlockValues((), ())
    if units and rest.baseline_s:
        units[-1] = _join(units[-1], rest)
    return tuple(units)


def _join(one: BlockValues, other: BlockValues) -> BlockValues:
    return BlockValues(one.baseline_s + other.baseline_s, one.path_s + other.path_s)
