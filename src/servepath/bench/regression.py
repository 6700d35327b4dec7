"""Two runs of the same benchmark: did anything become slower between them?

Within a run the paths are paired, between two runs nothing is: what the machine did in either is in the ratio of the
two. So two kinds of subjects are compared: each path by itself (`kserve`), which the machine can move as well as the
software; and the paired ratio of a path to the baseline (`kserve / raw`), from which the machine has gone. When
`kserve` is slower and `kserve / raw` is not, look at the machine first.

The interval comes from resampling six stretches of consecutive blocks of each run, since the blocks of a run drift
together. It knows little of what differs between runs but not within one, such as a neighbour on the machine for the
whole of a run: that is what the threshold is for, and why a regression takes an interval that lies wholly beyond it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from servepath.bench.model import MIN_BLOCKS, Metric, Sample, Statistic
from servepath.bench.pairing import unit_ratios, unit_values_s, values_by_block, values_of_both
from servepath.bench.stats import mean_log, welch_half_width
from servepath.bench.wording import ratio_text
from servepath.errors import InputError, SloMissedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from servepath.bench.pairing import ValuesByBlock

SAME_PLAN = (
    "prompt_tokens",
    "output_tokens",
    "requests_per_block",
    "arrivals",
    "rate_per_s",
    "burst_size",
    "users",
)
"""What of the plan shapes a latency; more blocks or another seed only make it better known."""


SAME_NODE = ("cpu_model", "cpus", "gpus", "architecture")


class Change(StrEnum):
    """What became of a latency."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Run:
    """One report: its place, its document (`report.json`) and the samples of its comparison."""

    place: str
    document: Mapping[str, Any]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Gate:
    """When a difference counts.

    Attributes:
        threshold_percent: a smaller slowdown is no regression, however well it is known.
        confidence: joint confidence of the intervals of the medians, and again of those of the 95th percentiles.
        resamples: bootstrap resamples of each run's blocks.
        seed: of the resampling.
    """

    threshold_percent: float = 5.0
    confidence: float = 0.95
    resamples: int = 4_000
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Finding:
    """One statistic of one subject in the second run against the first.

    Attributes:
        subject: a path, or `path / baseline` for their paired ratio.
        metric: the latency.
        statistic: what of it.
        before: geometric mean over the blocks of the first run: seconds for a path, a plain ratio for a paired one.
        after: the same of the second run.
        ratio: `after / before`; more than 1 is slower.
        low: lower end of its interval.
        high: upper end of its interval.
        change: the verdict.
        text: the verdict in words.
    """

    subject: str
    metric: Metric
    statistic: Statistic
    before: float
    after: float
    ratio: float
    low: float
    high: float
    change: Change
    text: str


@dataclass(frozen=True, slots=True)
class Regression:
    """The second run against the first.

    Attributes:
        gate: when a difference counts.
        findings: every path and paired ratio, the medians first.
        differences: what else differs between the runs, in words; empty when they are alike.
        lost: what the first run has and the second has not, in words: too few answers, or none.
    """

    gate: Gate
    findings: tuple[Finding, ...]
    differences: tuple[str, ...]
    lost: tuple[str, ...]

    @property
    def regressed(self) -> tuple[Finding, ...]:
        """The findings that are a regression."""
        return tuple(one for one in self.findings if one.change is Change.REGRESSED)

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        if self.regressed:
            return "; ".join(
                f"{one.subject} {one.metric.upper()} {one.statistic} is {one.text}" for one in self.regressed
            )
        if self.lost:
            return "not measured any more: " + "; ".join(self.lost)
        unsure = sum(one.change is Change.INCONCLUSIVE for one in self.findings)
        if unsure:
            return (
                f"no regression found; {unsure} of {len(self.findings)} comparisons are too uncertain to exclude "
                f"one of {self.gate.threshold_percent:g}%"
            )
        return f"no regression of {self.gate.threshold_percent:g}% or more"


def compare_runs(before: Run, after: Run, gate: Gate | None = None) -> Regression:
    """Compare two runs; what else differs between them is listed, not refused (`refuse_different` does that).

    Raises:
        InputError: a run has no comparison, or its client did not keep its schedule.
    """
    gate = gate or Gate()
    for run in (before, after):
        _refuse_unusable(run)
    first, second = values_by_block(before.samples), values_by_block(after.samples)
    findings: list[Finding] = []
    lost: list[str] = []
    for statistic in Statistic:
        family = [
            subject for subject in _subjects(before.document, statistic) if len(subject.units(first)) >= MIN_BLOCKS
        ]
        confidence = 1 - (1 - gate.confidence) / max(1, len(family))
        for subject in family:
            if len(subject.units(second)) >= MIN_BLOCKS:
                findings.append(_finding(subject, subject.units(first), subject.units(second), gate, confidence))
            elif statistic is Statistic.MEDIAN:
                lost.append(f"{subject.name} {subject.metric.upper()}")
    return Regression(gate, tuple(findings), what_differs(before.document, after.document), tuple(lost))


def refuse_different(before: Run, after: Run) -> None:
    """Refuse two runs that did not measure the same.

    Raises:
        InputError: they differ in model, engine, load or machine; it says in what.
    """
    differences = what_differs(before.document, after.document)
    if differences:
        raise InputError(
            f"the runs did not measure the same: {'; '.join(differences)}",
            where=f"{before.place} and {after.place}",
            expected="one model on one engine and machine, under one load",
            next_command="servepath report --help",
        )


def refuse_regression(regression: Regression) -> None:
    """Let nothing pass that became slower, or that is not measured any more.

    Raises:
        SloMissedError: something did; it says what and by how much.
    """
    if regression.regressed or regression.lost:
        raise SloMissedError(
            regression.headline,
            where="the second run against the first",
            expected=f"no latency longer by {regression.gate.threshold_percent:g}% or more",
            next_command="servepath report --help",
        )


def what_differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What two report documents did not measure alike, in words."""
    first, second = dict(_facts(before)), dict(_facts(after))
    return tuple(
        f"{name} is {first.get(name, 'absent')}, then {second.get(name, 'absent')}"
        for name in dict.fromkeys((*first, *second))
        if first.get(name) != second.get(name)
    )


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for one in document.get("deployments") or ():
        yield f"model of {one['path']}", one["modelcar_digest"]
        yield f"engine of {one['path']}", one["engine_image"].rpartition("@")[2]
    comparison = document.get("comparison") or {}
    plan = comparison.get("plan") or {}
    for name in SAME_PLAN:
        yield name, plan.get(name)
    yield "paths", ", ".join(one["path"] for one in comparison.get("paths") or ())
    node = (document.get("run") or {}).get("node") or {}
    for name in SAME_NODE:
        yield f"node's {name}", node.get(name)


@dataclass(frozen=True, slots=True)
class _Subject:
    """One statistic of one metric of a path, or of its paired ratio to the baseline."""

    path: str
    baseline: str
    metric: Metric
    statistic: Statistic

    @property
    def name(self) -> str:
        return f"{self.path} / {self.baseline}" if self.baseline else self.path

    def units(self, values: ValuesByBlock) -> tuple[float, ...]:
        """The value of each unit of a run: seconds for a path, a plain ratio for a paired one."""
        if self.baseline:
            return unit_ratios(values_of_both(values, self.metric, self.baseline, self.path), self.statistic)
        return unit_values_s(values_of_both(values, self.metric, self.path, self.path), self.statistic)


def _subjects(document: Mapping[str, Any], statistic: Statistic) -> tuple[_Subject, ...]:
    comparison = document["comparison"]
    baseline = comparison["baseline"]
    names = [one["path"] for one in comparison["paths"]]
    pairs = [(name, "") for name in names] + [(name, baseline) for name in names if name != baseline]
    return tuple(_Subject(path, base, metric, statistic) for path, base in pairs for metric in Metric)


def _finding(
    subject: _Subject, first: Sequence[float], second: Sequence[float], gate: Gate, confidence: float
) -> Finding:
    before = mean_log(first, resamples=gate.resamples, seed=gate.seed)
    after = mean_log(second, resamples=gate.resamples, seed=gate.seed)
    half_width = welch_half_width(before, after, confidence)
    center = after.mean - before.mean
    ratio, low, high = math.exp(center), math.exp(center - half_width), math.exp(center + half_width)
    change = change_of(low, high, gate.threshold_percent)
    return Finding(
        subject=subject.name,
        metric=subject.metric,
        statistic=subject.statistic,
        before=math.exp(before.mean),
        after=math.exp(after.mean),
        ratio=ratio,
        low=low,
        high=high,
        change=change,
        text=_text(change, ratio_text(ratio, low, high), gate.threshold_percent),
    )


def change_of(low: float, high: float, threshold_percent: float) -> Change:
    """The verdict on a ratio with its interval.

    `regressed`: the interval lies wholly above the threshold, `improved`: below its inverse. `same`: the interval
    excludes a slowdown of the threshold. `inconclusive`: the threshold lies within the interval.
    """
    limit = 1 + threshold_percent / 100
    if low > limit:
        return Change.REGRESSED
    if high < 1 / limit:
        return Change.IMPROVED
    return Change.SAME if high < limit else Change.INCONCLUSIVE


def _text(change: Change, ratio: str, threshold_percent: float) -> str:
    return {
        Change.REGRESSED: f"slower: {ratio}",
        Change.IMPROVED: f"faster: {ratio}",
        Change.SAME: f"no slowdown of {threshold_percent:g}%: {ratio}",
        Change.INCONCLUSIVE: f"too uncertain to tell a slowdown of {threshold_percent:g}%: {ratio}",
    }[change]


def _refuse_unusable(run: Run) -> None:
    comparison = run.document.get("comparison")
    if not comparison:
        raise InputError("the report has no comparison", where=run.place, next_command="servepath bench --help")
    if not comparison["client"]["kept_schedule"]:
        raise InputError(
            "its client did not keep its schedule, so its latencies are not the server's",
            where=run.place,
            expected="a run on a machine that is less busy",
            next_command="servepath bench --help",
        )
