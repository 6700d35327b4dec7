"""Whether two load generators saw the same thing, within the noise of what they saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.bench.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMER_S = 0.002
"""What event loops round a time to: epoll and libuv wake on whole milliseconds, on either side."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two sets of values of one metric, each as what its client added to the server's own value.

    Attributes:
        metric: its name.
        ours_p50_s: median of ours.
        theirs_p50_s: median of theirs.
        noise_s: the larger of the two interquartile ranges, plus the timers' resolution.
    """

    metric: str
    ours_p50_s: float
    theirs_p50_s: float
    noise_s: float

    @property
    def holds(self) -> bool:
        """Whether the medians differ by no more than the noise."""
        return abs(self.ours_p50_s - self.theirs_p50_s) <= self.noise_s


def agreement(metric: str, ours_s: Sequence[float], theirs_s: Sequence[float]) -> Agreement:
    """Compare the medians of two sets of values; neither may be empty."""
    noise_s = max(percentile(values, 75) - percentile(values, 25) for values in (ours_s, theirs_s))
    return Agreement(metric, percentile(ours_s, 50), percentile(theirs_s, 50), noise_s + TIMER_S)
