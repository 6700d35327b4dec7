"""The values of a sweep: what each path did at each offered rate, and the highest rate that met the objectives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servepath.bench.model import BenchPlan
from servepath.errors import UsageError

if TYPE_CHECKING:
    from servepath.bench.model import ClientHealth, PathSummary, Sample
    from servepath.bench.slo import Slo, SloResult


@dataclass(frozen=True, slots=True)
class SweepDesign:
    """Which rates are tried, and for how long.

    The first rates rise until every path has missed an objective; then the knee of each path is looked for between its
    last rate that met and its first that missed.

    Attributes:
        rates_per_s: the rising rates, in requests per second; empty to double from `start_rate_per_s` on.
        start_rate_per_s: the first rate where none are given.
        load_s: how long requests are sent at each rate, in seconds.
        min_requests: fewest requests of each load, however low its rate: a 95th percentile needs 20.
        precision_percent: the search ends when the lowest missed rate is at most this much above the knee.
        budget_s: time for all loads, in seconds, warm-up excluded; no load is begun that would pass it.
        usd_per_hour: price of everything that serves one path, None to state no cost.
    """

    rates_per_s: tuple[float, ...] = ()
    start_rate_per_s: float = 0.25
    load_s: float = 15.0
    min_requests: int = 20
    precision_percent: float = 10.0
    budget_s: float = 300.0
    usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        """Refuse a design that cannot be carried out.

        Raises:
            UsageError: a value is out of its range.
        """
        positive = {
            "start_rate_per_s": self.start_rate_per_s,
            "load_s": self.load_s,
            "min_requests": self.min_requests,
            "precision_percent": self.precision_percent,
            "budget_s": self.budget_s,
            "usd_per_hour": 1.0 if self.usd_per_hour is None else self.usd_per_hour,
            "rates_per_s": min(self.rates_per_s, default=1.0),
        }
        for name, value in positive.items():
            if not value > 0:
                raise UsageError(f"{name} is {value}", where="sweep design", expected="more than 0")
        if list(self.rates_per_s) != sorted(set(self.rates_per_s)):
            raise UsageError("the rates do not rise", where="sweep design", expected="each rate above the one before")


@dataclass(frozen=True, slots=True)
class Load:
    """One path under load at one rate, without its samples.

    Attributes:
        path: name of the endpoint.
        rate_per_s: offered rate, in requests per second.
        block: number of its samples; every load of every path has its own.
        waiting: requests that waited inside the engine, seen at even intervals while requests were sent; None where the
            engine's metrics could not be read.
    """

    path: str
    rate_per_s: float
    block: int
    waiting: tuple[float, ...] | None


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
        saturated: whether requests waited inside the engine all through the second half of the load: it had fallen
            behind the offered rate. False where its metrics could not be read.
        block: number of this point's samples; every load of every path has its own.
        waiting: the numbers that `waiting_max` is the maximum of, None where that is.
    """

    path: str
    rate_per_s: float
    summary: PathSummary
    slo: tuple[SloResult, ...]
    client: ClientHealth
    waiting_max: float | None
    saturated: bool
    block: int = 0
    waiting: tuple[float, ...] | None = None

    @property
    def load(self) -> Load:
        """What was done and seen besides the samples."""
        return Load(self.path, self.rate_per_s, self.block, self.waiting)

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
        next_rate_per_s: the lowest rate that missed one, None when none missed.
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
        plan: the requests' shape, seed and time limits, as in a comparison.
        design: the rates and times that were asked for.
    """

    slo: Slo
    points: tuple[SweepPoint, ...]
    knees: tuple[Knee, ...]
    samples: tuple[Sample, ...]
    stopped: str = ""
    plan: BenchPlan = field(default_factory=BenchPlan)
    design: SweepDesign = field(default_factory=SweepDesign)
