"""The values of a canary: the plan, what each step found, and how it ended.

Times named `*_s` are seconds; those of a result count from the beginning of the call that gave it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from servepath.bench.model import BenchPlan
from servepath.cluster.model import LeaseTimes
from servepath.errors import UsageError

if TYPE_CHECKING:
    from servepath.bench.model import Comparison
    from servepath.bench.slo import Slo, SloResult
    from servepath.serving.slots import Slot

DEFAULT_STEPS_PERCENT = (5, 25, 50, 100)
FULL_PERCENT = 100


class Decision(StrEnum):
    """What the evidence of one step asks for."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll back"


class Outcome(StrEnum):
    """How a canary ended."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """The constant load through the stable hostname, as a client of the model sends it: an open loop of streams.

    Attributes:
        rate_per_s: requests per second.
        output_tokens: length of each answer, in tokens.
        timeout_s: after how many seconds a request without its whole answer counts as failed.
    """

    rate_per_s: float = 2.0
    output_tokens: int = 8
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """How a canary is led, fixed before anything is changed.

    Attributes:
        steps_percent: the canary's share of the traffic, step by step, rising, the last one 100. A first step of 0
            measures the canary by its slot header before any client meets it.
        hold_s: how long each step is measured, in seconds.
        max_extensions: how many times a step without a finding is held again; after that it is rolled back.
        max_slowdown_percent: a canary that is slower than this in a median of TTFT or ITL is rolled back; it is
            promoted when the whole interval of both is below.
        max_error_rate: share of failed requests of the canary above which it is rolled back.
        slo: objectives of the canary, None for none.
        bench: the load of the paired measurement. A hold takes blocks for its time: `blocks`, `budget_s` and
            `precision_percent` say nothing here.
        client: the load through the stable hostname.
        lease: how long the cluster's lock on the release is held and waited for; a canary of a promotion has its.
    """

    steps_percent: tuple[int, ...] = DEFAULT_STEPS_PERCENT
    hold_s: float = 60.0
    max_extensions: int = 2
    max_slowdown_percent: float = 20.0
    max_error_rate: float = 0.0
    slo: Slo | None = None
    bench: BenchPlan = field(default_factory=lambda: BenchPlan(requests_per_block=1))
    client: ClientPlan = field(default_factory=ClientPlan)
    lease: LeaseTimes = field(default_factory=LeaseTimes)

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be carried out.

        Raises:
            UsageError: the steps do not rise to 100, or a time, rate or share is out of its range.
        """
        steps = self.steps_percent
        rising = all(before < after for before, after in pairwise(steps))
        if not steps or not rising or steps[0] < 0 or steps[-1] != FULL_PERCENT:
            raise UsageError(
                f"the steps are {','.join(map(str, steps)) or 'empty'}",
                where="canary plan",
                expected="rising whole percents from 0 or more to 100, such as 5,25,50,100",
            )
        if not self.hold_s > 0:
            raise UsageError(f"hold_s is {self.hold_s}", where="canary plan", expected="more than 0")
        for name in ("max_extensions", "max_slowdown_percent", "max_error_rate"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", where="canary plan", expected="0 or more")
        for name in ("rate_per_s", "output_tokens", "timeout_s"):
            if not getattr(self.client, name) > 0:
                raise UsageError(
                    f"{name} is {getattr(self.client, name)}", where="canary's client", expected="more than 0"
                )


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """What one step found.

    Attributes:
        number: the step's number, from 0.
        weight_percent: the canary's share of the traffic.
        decision: what it came to: promote or roll back.
        reasons: why, in words; for a promotion what was shown.
        extensions: how many times it was held again.
        comparison: the paired measurement of the canary against the stable slot, None where none came about.
        slo: the canary's objectives.
        began_s: when the gateway had taken the weight.
        ended_s: when it was decided.
    """

    number: int
    weight_percent: int
    decision: Decision
    reasons: tuple[str, ...]
    extensions: int
    comparison: Comparison | None
    slo: tuple[SloResult, ...]
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A change of the canary's share.

    Attributes:
        written_s: when it was written to the HTTPRoute.
        taken_s: when the gateway answered by it.
        canary_percent: the canary's share from then on.
    """

    written_s: float
    taken_s: float
    canary_percent: int


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request of the constant load through the stable hostname.

    Attributes:
        sent_s: when it was sent.
        ended_s: when its answer, or its failure, was complete.
        ttft_s: from its intended send time to its first token, None where none came.
        slot: which slot answered by the gateway's word, None where it did not say.
        error: what went wrong, empty when nothing did.
    """

    sent_s: float
    ended_s: float
    ttft_s: float | None
    slot: Slot | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """How a canary ended, with all its evidence.

    Attributes:
        id: the canary's id, as on the HTTPRoute.
        outcome: promoted or rolled back.
        cause: why it was rolled back, empty when it was promoted.
        plan: what was asked for.
        host: the stable hostname.
        stable_digest: digest of the model that was the stable one.
        canary_digest: digest of the model that was to become it.
        canary_slot: where the canary was deployed; after a promotion it is the stable slot.
        steps: what each step of this call found.
        weights: every change of the canary's share in this call.
        requests: the constant load through the stable hostname, in the order of sending.
        resumed: it was begun by an earlier call, which was killed.
        duration_s: how long this call took.
    """

    id: str
    outcome: Outcome
    cause: str
    plan: CanaryPlan
    host: str
    stable_digest: str
    canary_digest: str
    canary_slot: Slot
    steps: tuple[StepVerdict, ...]
    weights: tuple[WeightChange, ...]
    requests: tuple[ClientRequest, ...]
    resumed: bool
    duration_s: float

    @property
    def failed_count(self) -> int:
        """How many requests of the constant load failed."""
        return sum(bool(request.error) for request in self.requests)
