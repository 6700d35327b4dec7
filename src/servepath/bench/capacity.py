"""The values of a sweep: what each path did at each offered rate, and the highest rate that met the objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servepath.bench.model import ClientHealth, PathSummary, Sample
    from servepath.bench.slo import Slo, SloResult


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One path at one offered rate.

    Attributes:
        path: name of the endpoint.
        rate_per_s: offered rate, in requests per second.
        summary: what the path did at this rate.
        slo: every objective with what was seen.
        client: whether the client kept its schedule at this rate; a point where it did not shows nothing.
        waiting_max: most requests that waited inside the engine (`vllm:num_requests_waiting`), None where the engine's
            metrics could not be read.
        saturated: whether the path fell behind the offered rate.
        block: number of this point's samples; every load of every path has its own.
    """

    path: str
    rate_per_s: float
    summary: PathSummary
    slo: tuple[SloResult, ...]
    client: ClientHealth
    waiting_max: float | None
    saturated: bool
    block: int = 0

    @property
    def meets_slo(self) -> bool:
        """Whether every objective was met, by a client that kept its schedule."""
        return self.client.kept_schedule and all(one.met for one in self.slo)


@dataclass(frozen=True, slots=True)
class Cost:
    """What serving at the knee costs, in US dollars, at an hourly price of everything that serves one path."""

    usd_per_hour: float
    usd_per_1k_requests: float
    usd_per_1m_output_tokens: float


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest offered rate at which one path met its objectives.

    Attributes:
        path: name of the endpoint.
        rate_per_s: the highest rate below the first miss that met every objective, None when none did.
        next_rate_per_s: the lowest rate above it that missed one, None when none missed.
        goodput_requests_per_s: requests per second at the knee that each met every latency objective.
        output_tokens_per_s: completion tokens per second at the knee.
        cost: at the hourly price, None without a price or without goodput.
    """

    path: str
    rate_per_s: float | None
    next_rate_per_s: float | None
    goodput_requests_per_s: float
    output_tokens_per_s: float
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        slo: the objectives.
        points: in the order in which they were measured.
        knees: one per path.
        samples: every request, warm-up excluded.
        stopped: why no further rate was tried, in words.
    """

    slo: Slo
    points: tuple[SweepPoint, ...]
    knees: tuple[Knee, ...]
    samples: tuple[Sample, ...]
    stopped: str = ""
