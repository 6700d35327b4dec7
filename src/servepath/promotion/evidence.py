"""What a promotion has learnt, for its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servepath.canary.model import CanaryResult
    from servepath.evidence import CheckResult
    from servepath.promotion.copying import Copied
    from servepath.promotion.gate import GateEvidence
    from servepath.promotion.model import Plan
    from servepath.promotion.record import Record
    from servepath.promotion.restore import Restored
    from servepath.promotion.transaction import Recovered
    from servepath.serving.model import Endpoint


@dataclass(slots=True)
class Evidence:
    """What a promotion has learnt so far; what it never learnt is None or empty.

    Attributes:
        plan: what it was to do.
        recovered: promotions that had been killed, finished or undone first.
        record: as it was written last.
        copied: what was copied.
        gate: what the gate found.
        canary: how the canary went.
        verified: the last checks.
        restored: what it took to put everything back.
        endpoint: where it serves.
    """

    plan: Plan | None = None
    recovered: tuple[Recovered, ...] = ()
    record: Record | None = None
    copied: Copied | None = None
    gate: GateEvidence | None = None
    canary: CanaryResult | None = None
    verified: tuple[CheckResult, ...] = ()
    restored: Restored | None = None
    endpoint: Endpoint | None = None

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """Every check, in the order of the stages."""
        copied = self.copied.checks if self.copied else ()
        gate = self.gate.checks if self.gate else ()
        return (*copied, *gate, *self.verified)
