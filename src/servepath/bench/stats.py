"""Percentiles, and ratios between paired blocks with a bootstrap interval.

A block is the unit of resampling: requests within a block share the state of the machine, blocks do not. The estimate
is the mean over blocks of the log ratio of medians; its standard error comes from resampling whole blocks, and is
widened by `sqrt(n / (n - 1))` and Student's t with `n - 1` degrees of freedom, because the plain percentile interval
is too narrow for few blocks. Source: T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American
Statistician 69 (2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLE_CHUNK = 1_000

DRIFT_GROUPS = 6
"""More stretches of a run would be short enough to depend on each other, fewer would leave Student's t little."""


@dataclass(frozen=True, slots=True)
class RatioInterval:
    """A ratio with its interval, and the increase that would have been found."""

    ratio: float
    low: float
    high: float
    detectable_percent: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile by linear interpolation between order statistics; `values` must not be empty."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    between = ordered[below] + (ordered[above] - ordered[below]) * (position - below)
    return min(max(between, ordered[below]), ordered[above])


def ratio_interval(
    block_ratios: Sequence[float], *, confidence: float, power: float, resamples: int, seed: int
) -> RatioInterval:
    """The geometric mean of paired block ratios with its interval.

    Args:
        block_ratios: one positive ratio per block, at least 2.
        confidence: of this interval, two-sided.
        power: chance of finding a difference of `detectable_percent`.
        resamples: bootstrap resamples of the blocks.
        seed: of the resampling; the same input gives the same interval.
    """
    logs = np.log(np.asarray(block_ratios, dtype=np.float64))
    error = bootstrap_standard_error(logs, resamples=resamples, seed=seed)
    degrees = logs.size - 1
    critical = student_t_quantile(0.5 + confidence / 2, degrees)
    center = float(logs.mean())
    return RatioInterval(
        ratio=math.exp(center),
        low=math.exp(center - critical * error),
        high=math.exp(center + critical * error),
        detectable_percent=100 * math.expm1((critical + student_t_quantile(power, degrees)) * error),
    )


def bootstrap_standard_error(blocks: NDArray[np.float64], *, resamples: int, seed: int) -> float:
    """Standard error of the mean over blocks, by resampling blocks, corrected for their small number."""
    rng = np.random.default_rng([seed, blocks.size])
    means = [
        blocks[rng.integers(0, blocks.size, (min(RESAMPLE_CHUNK, resamples - start), blocks.size))].mean(axis=1)
        for start in range(0, resamples, RESAMPLE_CHUNK)
    ]
    return float(np.concatenate(means).std() * math.sqrt(blocks.size / (blocks.size - 1)))


@dataclass(frozen=True, slots=True)
class MeanLog:
    """The mean logarithm over the blocks of one run, its standard error, and the degrees of freedom of that."""

    mean: float
    error: float
    degrees: int


def mean_log(values: Sequence[float], *, resamples: int, seed: int) -> MeanLog:
    """The mean logarithm of a series of positive values that drifts: neighbours depend on each other.

    The series is cut into `DRIFT_GROUPS` stretches, and their means are resampled as blocks are: with a fixed small
    number of stretches Student's t holds for dependent and uneven data. Source: R. Ibragimov, U. Mueller,
    "t-Statistic Based Correlation and Heterogeneity Robust Inference", J. Business & Economic Statistics 28 (2010).
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    groups = np.array([part.mean() for part in np.array_split(logs, min(DRIFT_GROUPS, logs.size))])
    error = bootstrap_standard_error(groups, resamples=resamples, seed=seed)
    return MeanLog(mean=float(groups.mean()), error=error, degrees=groups.size - 1)


def welch_half_width(one: MeanLog, other: MeanLog, confidence: float) -> float:
    """Half width of the two-sided interval of the difference of two means with errors of their own.

    Source: B. L. Welch, Biometrika 34 (1947); the degrees of freedom are rounded down.
    """
    variance = one.error**2 + other.error**2
    if variance == 0:
        return 0.0
    degrees = variance**2 / (one.error**4 / one.degrees + other.error**4 / other.degrees)
    return student_t_quantile(0.5 + confidence / 2, max(1, int(degrees))) * math.sqrt(variance)


@cache
def student_t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t with a whole number of degrees of freedom, by bisection, to 1e-10."""
    if probability < 0.5:  # noqa: PLR2004  # the distribution is symmetric
        return -student_t_quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while student_t_cdf(high, degrees) < probability:
        low, high = high, 2 * high
    while high - low > 1e-10 * max(1.0, high):
        middle = (low + high) / 2
        if student_t_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_t_cdf(value: float, degrees: int) -> float:
    """Distribution function of Student's t.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(value / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0
    for step in range((degrees - 1) // 2 if odd else degrees // 2):
        total += term
        term *= (
            cosine * cosine * (2 * step + 2) / (2 * step + 3)
            if odd
            else cosine * cosine * (2 * step + 1) / (2 * step + 2)
        )
    between = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + between / 2
