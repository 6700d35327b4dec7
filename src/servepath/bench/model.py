"""The values of a benchmark: the plan, one sample per request, summaries and paired ratios.

All times named `*_s` are seconds. Times of a `Sample` count from the start of its block, on the client's monotonic
clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from servepath.errors import UsageError


class Arrivals(StrEnum):
    """How the send times of a block are spread.

    `constant`, `poisson` and `burst` are open loops: requests are sent at their times, whether earlier ones have ended
    or not. `closed` is a closed loop: each user sends the next request when the former one has ended.
    """

    CONSTANT = "constant"
    POISSON = "poisson"
    BURST = "burst"
    CLOSED = "closed"


class ErrorClass(StrEnum):
    """Why a request gave no usable latency."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    STATUS = "status"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    MALFORMED = "malformed"


class Metric(StrEnum):
    """A latency that is compared between paths.

    `ttft`: from the intended send time to the first content chunk. `itl`: the gap between two content chunks of a
    stream. `e2e`: from the intended send time to the end of the stream.
    """

    TTFT = "ttft"
    ITL = "itl"
    E2E = "e2e"


class Statistic(StrEnum):
    """What of a latency's distribution is compared."""

    MEDIAN = "median"
    P95 = "p95"


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """The design of a comparison, fixed before the first request.

    The defaults fit a 2-core machine that decodes about 16 tokens/s: about a minute for two paths.

    Attributes:
        blocks: fewest blocks; in each block every path is loaded once, in random order.
        requests_per_block: requests that each path gets in one block.
        rate_per_s: offered request rate within a block; a closed loop has none.
        arrivals: spread of the intended send times.
        burst_size: requests sent at once with `burst`; the bursts come at `rate_per_s / burst_size`.
        users: requests in flight at once with `closed`.
        prompt_tokens: wanted length of the user prompt, in tokens.
        output_tokens: length of each answer in tokens; `ignore_eos` makes the engine keep to it.
        warmup_requests: requests per path that are sent first and thrown away.
        seed: seed of prompts, order, arrivals and bootstrap.
        connect_timeout_s: budget to open a connection.
        request_timeout_s: budget from sending a request to the end of its stream.
        max_lateness_p95_s: above it, the client did not keep its schedule and the result is not to be used.
        max_error_rate: share of failed requests above which a run fails.
        confidence: joint confidence of all paired intervals, of the medians and of the 95th percentiles.
        power: chance of finding the difference that "would have been found".
        bootstrap_resamples: resamples of the blocks.
        precision_percent: the run grows until every median ratio is known to plus or minus this, or its time is spent.
        budget_s: time for the blocks, in seconds, warm-up excluded; the fewest blocks are done whatever it says, so
            with 0 the run has exactly `blocks` blocks.
        tokenizer_path: a `tokenizer.json` for prompts of exact length, empty to calibrate with the server's usage.
    """

    blocks: int = 8
    requests_per_block: int = 2
    rate_per_s: float = 0.5
    arrivals: Arrivals = Arrivals.CONSTANT
    prompt_tokens: int = 32
    output_tokens: int = 16
    warmup_requests: int = 2
    seed: int = 42
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 120.0
    max_lateness_p95_s: float = 0.05
    max_error_rate: float = 0.0
    confidence: float = 0.95
    power: float = 0.8
    bootstrap_resamples: int = 10_000
    precision_percent: float = 5.0
    budget_s: float = 60.0
    tokenizer_path: str = ""
    burst_size: int = 4
    users: int = 4

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be carried out.

        Raises:
            UsageError: a value is out of its range.
        """
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", where="benchmark plan", expected="at least 1")
        if self.blocks < MIN_BLOCKS:
            raise UsageError(
                f"blocks is {self.blocks}",
                where="benchmark plan",
                expected=f"at least {MIN_BLOCKS}: an interval over blocks needs them",
            )
        for name in ("warmup_requests", "budget_s"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", where="benchmark plan", expected="0 or more")
        for name in (
            "rate_per_s",
            "connect_timeout_s",
            "request_timeout_s",
            "max_lateness_p95_s",
            "precision_percent",
        ):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}", where="benchmark plan", expected="more than 0")
        for name in ("confidence", "power"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", where="benchmark plan", expected="between 0 and 1")


MIN_BLOCKS = 6
"""With n blocks, all ratios of a path to itself lie on the same side of 1 by chance in 2^(1-n) of runs, whatever the
noise: 25% with 3 blocks, 3% with 6. Below this no interval over blocks can be trusted."""

AT_LEAST_ONE = ("requests_per_block", "prompt_tokens", "output_tokens", "bootstrap_resamples", "burst_size", "users")


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as the client saw it.

    Attributes:
        path: name of the endpoint.
        block: number of the block, from 0.
        index: number of the request within its block, from 0.
        intended_s: when the schedule said to send it; in a closed loop, when it was sent.
        sent_s: when it was sent.
        token_times_s: when each content chunk came; an engine may put more than one token in a chunk.
        end_s: when the stream ended, or when the error was known.
        prompt_tokens: by the server's usage, 0 when it sent none.
        completion_tokens: by the server's usage, 0 when it sent none.
        error: why it failed, empty when it did not.
        error_detail: what was seen, in words.
    """

    path: str
    block: int
    index: int
    intended_s: float
    sent_s: float
    token_times_s: tuple[float, ...]
    end_s: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: ErrorClass | None = None
    error_detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the stream came to its regular end."""
        return self.error is None

    @property
    def first_token_s(self) -> float | None:
        """When the first content chunk came."""
        return self.token_times_s[0] if self.token_times_s else None

    @property
    def lateness_s(self) -> float:
        """How late the client sent the request."""
        return self.sent_s - self.intended_s

    def values_s(self, metric: Metric) -> tuple[float, ...]:
        """The sample's values of one metric: one for TTFT and E2E, one per gap for ITL."""
        if metric is Metric.E2E:
            return (self.end_s - self.intended_s,)
        if metric is Metric.TTFT:
            return tuple(time_s - self.intended_s for time_s in self.token_times_s[:1])
        return tuple(
            later - earlier for earlier, later in zip(self.token_times_s, self.token_times_s[1:], strict=False)
        )


@dataclass(frozen=True, slots=True)
class Distribution:
    """Percentiles of one metric over the successful requests of one path."""

    metric: Metric
    sample_count: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class PathSummary:
    """What one path did over all blocks.

    Attributes:
        path: name of the endpoint.
        request_count: requests sent, warm-up excluded.
        error_count: how many of them failed.
        errors: number of failures by class.
        latencies: one distribution per metric that has values.
        loaded_s: sum over the blocks of the time from the first intended send to the last end.
        output_tokens_per_s: completion tokens over `loaded_s`; bounded by the offered rate, so no capacity.
        completed_requests_per_s: successful requests over `loaded_s`, whatever their latency.
        prompt_tokens_mean: mean length of the prompts by the server's usage, chat template included.
        completion_tokens_mean: mean length of the answers by the server's usage.
        content_chunks_mean: mean number of content chunks: equal to `completion_tokens_mean` when each carries a token.
        goodput_requests_per_s: requests that each met every latency objective over `loaded_s`, None without objectives.
    """

    path: str
    request_count: int
    error_count: int
    errors: dict[str, int]
    latencies: tuple[Distribution, ...]
    loaded_s: float
    output_tokens_per_s: float
    completed_requests_per_s: float
    prompt_tokens_mean: float
    completion_tokens_mean: float
    content_chunks_mean: float
    goodput_requests_per_s: float | None = None

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed."""
        return self.error_count / self.request_count if self.request_count else 0.0

    def latency(self, metric: Metric) -> Distribution | None:
        """The distribution of one metric, None when no request succeeded."""
        return next((one for one in self.latencies if one.metric is metric), None)


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """One path against the baseline, in one metric.

    Attributes:
        metric: the latency compared.
        baseline: name of the path in the denominator.
        path: name of the path in the numerator.
        ratio: geometric mean over units of (statistic of `path` / statistic of `baseline`).
        low: lower end of the interval.
        high: upper end of the interval.
        detectable_percent: a slowdown of this size would have been found, with the plan's power.
        block_count: units: blocks in which both paths gave values; for a 95th percentile as many consecutive blocks
            joined as it takes to have enough values.
        block_ratios: the ratio of each of these units.
        verdict: the finding in words.
        statistic: what of the latency is compared.
    """

    metric: Metric
    baseline: str
    path: str
    ratio: float
    low: float
    high: float
    detectable_percent: float
    block_count: int
    block_ratios: tuple[float, ...]
    verdict: str
    statistic: Statistic = Statistic.MEDIAN

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 1."""
        return not self.low <= 1.0 <= self.high


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Whether the load generator did what the schedule said.

    Attributes:
        lateness_p95_s: 95th percentile of sent minus intended time.
        lateness_max_s: the largest of them.
        kept_schedule: False when the result is not to be used.
    """

    lateness_p95_s: float
    lateness_max_s: float
    kept_schedule: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a paired comparison.

    Attributes:
        plan: the design that was carried out.
        baseline: name of the path that the others are compared with.
        order: names of the paths in the order of each block.
        summaries: one per path, the baseline first.
        ratios: one per other path, metric and statistic that enough blocks have values for, the medians first.
        client: whether the client kept its schedule.
        headline: the finding in one line.
        samples: every request, warm-up excluded.
        stopped: why the run took no further block, in words.
    """

    plan: BenchPlan
    baseline: str
    order: tuple[tuple[str, ...], ...]
    summaries: tuple[PathSummary, ...]
    ratios: tuple[PairedRatio, ...]
    client: ClientHealth
    headline: str
    samples: tuple[Sample, ...]
    stopped: str = ""
