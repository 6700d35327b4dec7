"""What a lifecycle measurement gives: numbers with their unit, their samples and how they were taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number, and what it was made of.

    Attributes:
        name: what was measured, such as `start_warm`.
        subject: of what: a serving path, a program, a way of the model into the node.
        unit: `s`, `bytes`, `requests` or `cores`.
        value: the median of the samples.
        samples: each single measurement, in the order in which they were taken.
        how: how it was measured, in words.
    """

    name: str
    subject: str
    unit: str
    value: float
    samples: tuple[float, ...]
    how: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """An update of one serving path under a constant load.

    Attributes:
        path: the serving path.
        strategy: the Deployment's strategy: `Recreate` or `RollingUpdate`.
        request_count: requests sent from the beginning of the rollout to its end.
        failed_count: those of them that got no answer or a wrong one.
        downtime_s: seconds in which requests failed: from each first failed request to the next answered one.
        duration_s: from the update to the last request before which the new pod alone served.
        samples: of each request, the seconds since the rollout began when it was sent, and whether it was answered.
        errors: what the failed requests came to, each with how many.
    """

    path: str
    strategy: str
    request_count: int
    failed_count: int
    downtime_s: float
    duration_s: float
    samples: tuple[tuple[float, bool], ...]
    errors: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What KServe gives and costs besides latency.

    Attributes:
        measurements: numbers, one per name and subject.
        rollouts: the updates under load.
        skipped: what was not measured, and why; each in words.
    """

    measurements: tuple[Measurement, ...]
    rollouts: tuple[Rollout, ...]
    skipped: tuple[str, ...] = ()
