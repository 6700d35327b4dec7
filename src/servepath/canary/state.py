"""Where a canary stands: pure values and the moves between them. All of it is kept on one object, the HTTPRoute.

The weights follow from the state: there is no state in which they could be anything else, and both are written in one
request. So a controller that is killed leaves a state and its weights, never a part of either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from servepath.canary.model import FULL_PERCENT

if TYPE_CHECKING:
    from servepath.serving.slots import Slot


class Phase(StrEnum):
    """What is being done with a canary.

    `deploying`: its slot is being made; nothing leads there. `proving`: it is ready and is asked by its slot header
    alone. `stepping`: it has its share of the traffic. `rolling back`: it has none, and its slot is to go. `promoted`:
    it is the stable slot, and the one before is to be stopped.
    """

    DEPLOYING = "deploying"
    PROVING = "proving"
    STEPPING = "stepping"
    ROLLING_BACK = "rolling back"
    PROMOTED = "promoted"


@dataclass(frozen=True, slots=True)
class Canary:
    """A canary under way.

    Attributes:
        id: made anew for each canary.
        slot: where it is.
        modelcar: its model, `host/repository@sha256:…`.
        steps_percent: its share of the traffic, step by step.
        started: when it was begun, UTC in ISO 8601.
        holder: the controller that leads it.
        phase: what is being done.
        step: the number of the present step, from 0.
        cause: why it is rolled back, empty before that.
        replaced: the model that was the stable one when it began, `host/repository@sha256:…`.
    """

    id: str
    slot: Slot
    modelcar: str
    steps_percent: tuple[int, ...]
    started: str
    holder: str
    replaced: str
    phase: Phase = Phase.DEPLOYING
    step: int = 0
    cause: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it is decided; what remains is to put away the slot that serves nobody."""
        return self.phase in (Phase.ROLLING_BACK, Phase.PROMOTED)


@dataclass(frozen=True, slots=True)
class RouteState:
    """What the HTTPRoute says.

    Attributes:
        stable: the slot that serves whoever the canary does not.
        canary: the canary under way, None between two.
        revision: counts the changes of what is routed; the gateway's answers carry it.
    """

    stable: Slot
    canary: Canary | None = None
    revision: int = 1

    @property
    def canary_percent(self) -> int:
        """The canary's share of the traffic."""
        if self.canary is None:
            return 0
        match self.canary.phase:
            case Phase.STEPPING:
                return self.canary.steps_percent[self.canary.step]
            case Phase.PROMOTED:
                return FULL_PERCENT
            case _:
                return 0

    @property
    def weights(self) -> dict[Slot, int]:
        """The weight of each slot that the route leads to: a slot that is not ready, or that is to go, is none."""
        canary = self.canary
        if canary is None or canary.phase in (Phase.DEPLOYING, Phase.ROLLING_BACK, Phase.PROMOTED):
            return {self.stable: FULL_PERCENT}
        return {self.stable: FULL_PERCENT - self.canary_percent, canary.slot: self.canary_percent}


def begun(state: RouteState, canary: Canary) -> RouteState:
    """Begin a canary in the slot that is free."""
    _demand(state.canary is None, "another canary is under way")
    _demand(canary.slot is state.stable.other, "its slot is the stable one")
    return replace(state, canary=replace(canary, phase=Phase.DEPLOYING, step=0, cause=""))


def deployed(state: RouteState) -> RouteState:
    """Its slot is ready: lead requests with its slot header there, and no others."""
    return _moved(state, Phase.PROVING, allowed=(Phase.DEPLOYING,))


def stepped(state: RouteState) -> RouteState:
    """Take the next step; behind the last one it is promoted."""
    canary = _present(state)
    if canary.phase is Phase.PROVING:
        return _moved(state, Phase.STEPPING, allowed=(Phase.PROVING,))
    _demand(canary.phase is Phase.STEPPING, f"no step from {canary.phase}")
    if canary.step + 1 < len(canary.steps_percent):
        return replace(state, canary=replace(canary, step=canary.step + 1), revision=state.revision + 1)
    promoted = _moved(state, Phase.PROMOTED, allowed=(Phase.STEPPING,))
    return replace(promoted, stable=canary.slot)


def rolled_back(state: RouteState, cause: str) -> RouteState:
    """Take all traffic from it, at once. One that is over stays what it is."""
    canary = _present(state)
    if canary.is_over:
        return state
    moved = _moved(state, Phase.ROLLING_BACK, allowed=tuple(Phase))
    return replace(moved, canary=replace(_present(moved), cause=cause))


def finished(state: RouteState) -> RouteState:
    """The slot that served nobody is put away: the stable slot is alone."""
    _demand(_present(state).is_over, "it is not over")
    return replace(state, canary=None)


def held_by(state: RouteState, holder: str) -> RouteState:
    """Name the controller that leads it."""
    return replace(state, canary=replace(_present(state), holder=holder))


def _moved(state: RouteState, phase: Phase, *, allowed: tuple[Phase, ...]) -> RouteState:
    canary = _present(state)
    _demand(canary.phase in allowed, f"not from {canary.phase} to {phase}")
    return replace(state, canary=replace(canary, phase=phase), revision=state.revision + 1)


def _present(state: RouteState) -> Canary:
    if state.canary is None:
        raise ValueError("no canary is under way")
    return state.canary


def _demand(condition: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise ValueError(otherwise)
