"""The moves of a canary: killed at whatever moment, the weights are those of a step, or one slot has all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.canary.model import CanaryPlan
from servepath.canary.route import read_state, read_weights, render_route, route_manifest
from servepath.canary.state import (
    Canary,
    Phase,
    RouteState,
    begun,
    deployed,
    finished,
    held_by,
    rolled_back,
    stepped,
)
from servepath.errors import ClusterError, UsageError
from servepath.serving.model import ServingSpec
from servepath.serving.profiles import CPU
from servepath.serving.render import GatewayRef
from servepath.serving.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.cluster.objects import Json

OLD, NEW = (f"registry/model@sha256:{digit * 64}" for digit in "ab")
SPEC = ServingSpec("servepath", "model", "model", NEW, f"registry/engine@sha256:{'e' * 64}", CPU)

steps = st.sets(st.integers(0, 99), max_size=5).map(lambda found: (*sorted(found), 100))
slots = st.sampled_from(Slot)


def canary(slot: Slot, steps_percent: tuple[int, ...] = (5, 100)) -> Canary:
    return Canary("id", slot, NEW, steps_percent, "2026-01-01", "me", OLD)


def walked(state: RouteState, moves: int) -> RouteState:
    """The state after so many moves of a canary that is promoted in the end."""
    for _ in range(moves):
        if state.canary is None or state.canary.is_over:
            break
        state = deployed(state) if state.canary.phase is Phase.DEPLOYING else stepped(state)
    return state


states = st.builds(
    lambda stable, its, moves: walked(begun(RouteState(stable), canary(stable.other, its)), moves),
    slots,
    steps,
    st.integers(0, 9),
)


@given(states)
def test_the_weights_are_a_whole_and_the_canarys_share_is_one_of_its_steps(state: RouteState) -> None:
    weights = state.weights
    assert sum(weights.values()) == 100
    assert state.canary is not None
    share = weights.get(state.canary.slot, 0)
    assert share == state.canary_percent
    assert share in {0, 100, *state.canary.steps_percent}


@given(states, st.text(max_size=20))
def test_rolled_back_from_anywhere_the_stable_slot_has_everything(state: RouteState, cause: str) -> None:
    before = state.canary
    assert before is not None
    back = rolled_back(state, cause)
    if before.is_over:
        assert back == state
    else:
        assert back.weights == {state.stable: 100}
        assert back.canary is not None
        assert (back.canary.phase, back.canary.cause) == (Phase.ROLLING_BACK, cause)
        assert back.revision == state.revision + 1
    assert finished(rolled_back(back, "again")).weights == back.weights


@given(steps, slots)
def test_a_promoted_canary_is_the_stable_slot_without_another_move(
    steps_percent: tuple[int, ...], stable: Slot
) -> None:
    promoted = walked(begun(RouteState(stable), canary(stable.other, steps_percent)), 99)
    assert promoted.canary is not None
    assert promoted.canary.phase is Phase.PROMOTED
    assert finished(promoted) == RouteState(stable.other, None, promoted.revision)
    assert finished(promoted).weights == {stable.other: 100}


@given(states)
def test_no_move_changes_what_is_routed_without_a_new_revision(state: RouteState) -> None:
    assert state.canary is not None
    following = [held_by(state, "other"), rolled_back(state, "")]
    if not state.canary.is_over:
        following.append(walked(state, 1))
    else:
        following.append(finished(state))
    for then in following:
        assert then.revision > state.revision or then.weights == state.weights


def test_a_second_canary_cannot_begin() -> None:
    state = begun(RouteState(Slot.BLUE), canary(Slot.GREEN))
    with pytest.raises(ValueError, match="another canary"):
        begun(state, canary(Slot.GREEN))
    with pytest.raises(ValueError, match="stable one"):
        begun(RouteState(Slot.BLUE), canary(Slot.BLUE))


@dataclass(slots=True)
class World:
    """A route that outlives its controllers, and how much of its life is left to the present one."""

    state: RouteState
    writes_left: int = 0
    seen: list[dict[Slot, int]] = field(default_factory=list)

    def write(self, state: RouteState) -> None:
        """Write, or be killed before it."""
        if not self.writes_left:
            raise KilledError
        self.writes_left -= 1
        self.state = state
        self.seen.append(state.weights)

    def lead(self, is_good: bool) -> None:  # noqa: FBT001 - the one thing that a canary is
        """Lead what is there to its end, as `Lead.to_the_end` does."""
        while self.state.canary is not None:
            state = self.state
            if self.state.canary.is_over:
                self.write(finished(state))
            elif self.state.canary.phase is Phase.DEPLOYING:
                self.write(deployed(state))
            else:
                self.write(stepped(state) if is_good else rolled_back(state, "bad"))


class KilledError(Exception):
    """A controller was killed."""


@given(steps, slots, st.booleans(), st.lists(st.integers(0, 4), max_size=12))
def test_killed_at_any_moment_the_next_call_promotes_or_rolls_back(
    steps_percent: tuple[int, ...],
    stable: Slot,
    is_good: bool,  # noqa: FBT001 - given by hypothesis
    lives: list[int],
) -> None:
    world = World(begun(RouteState(stable), canary(stable.other, steps_percent)))
    for life in (*lives, 99):
        world.writes_left = life
        try:
            world.lead(is_good)
        except KilledError:
            continue
    assert world.state.canary is None
    assert world.state.weights == {stable.other if is_good else stable: 100}
    allowed = [{stable: 100}, {stable.other: 100}]
    allowed += [{stable: 100 - share, stable.other: share} for share in {0, *steps_percent}]
    assert [weights for weights in world.seen if weights not in allowed] == []


@pytest.mark.anyio
@pytest.mark.parametrize("moves", range(6))
@pytest.mark.parametrize("stable", Slot)
async def test_a_route_is_read_back_as_the_state_it_was_made_of(moves: int, stable: Slot) -> None:
    state = walked(begun(RouteState(stable), canary(stable.other, (5, 50, 100))), moves)
    state = rolled_back(state, "two\nlines") if moves == 4 else state
    route = render_route(await route_manifest(), SPEC, GatewayRef("gateways", "public"), ("a.test",), state)
    assert read_state(route) == state
    assert read_weights(route) == {slot: share for slot, share in state.weights.items() if share}
    assert route["spec"]["parentRefs"][0]["namespace"] == "gateways"
    assert {rule["timeouts"]["request"] for rule in route["spec"]["rules"]} == {"300s"}


@pytest.mark.anyio
@pytest.mark.parametrize("moves", range(6))
@pytest.mark.parametrize("stable", Slot)
async def test_every_rule_and_place_is_always_there_and_leads_to_a_slot_that_serves(moves: int, stable: Slot) -> None:
    state = walked(begun(RouteState(stable), canary(stable.other, (5, 50, 100))), moves)
    route = render_route(await route_manifest(), SPEC, GatewayRef(), ("a.test",), state)
    rules = route["spec"]["rules"]
    assert [len(rule["backendRefs"]) for rule in rules] == [2, 1, 1]
    backends = [backend for rule in rules for backend in rule["backendRefs"]]
    assert min(backend["weight"] for backend in backends) > 0
    named = {"blue": "model-kserve-predictor", "green": "model-green-kserve-predictor"}
    slots_led_to = [backend["filters"][0]["responseHeaderModifier"]["set"][0]["value"] for backend in backends]
    assert [backend["name"] for backend in backends] == [named[slot] for slot in slots_led_to]
    assert set(slots_led_to) <= {str(slot) for slot in state.weights}
    assert {str(slot) for slot, share in state.weights.items() if share} == set(slots_led_to[:2])


@pytest.mark.anyio
async def test_a_route_whose_weights_somebody_changed_is_not_taken_for_ours() -> None:
    state = walked(begun(RouteState(Slot.BLUE), canary(Slot.GREEN)), 2)
    route = render_route(await route_manifest(), SPEC, GatewayRef(), ("a.test",), state)
    route["spec"]["rules"][0]["backendRefs"][1]["weight"] = 500_000
    with pytest.raises(ClusterError, match="weights are blue 95, green 50 and not blue 95, green 5"):
        read_state(route)
    del route["metadata"]["annotations"]["servepath.dev/stable-slot"]
    with pytest.raises(ClusterError, match="annotations cannot be read"):
        read_state(route)


DOCS = {"name": "docs", "port": 80, "weight": 1}
REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}


def add_rule(rules: list[Json]) -> None:
    rules.append({"matches": [{"path": {"type": "PathPrefix", "value": "/docs"}}], "backendRefs": [DOCS]})


def add_redirect(rules: list[Json]) -> None:
    rules.append({"matches": [{"path": {"type": "PathPrefix", "value": "/docs"}}], "filters": [REDIRECT]})


def add_backend(rules: list[Json]) -> None:
    rules[0]["backendRefs"].append(DOCS)


def add_backend_to_a_slot(rules: list[Json]) -> None:
    rules[1]["backendRefs"].append(DOCS)


def remove_rule(rules: list[Json]) -> None:
    del rules[2]


def remove_matches(rules: list[Json]) -> None:
    rules[1]["matches"] = []


def remove_filters(rules: list[Json]) -> None:
    del rules[0]["backendRefs"][0]["filters"]


def empty_filters(rules: list[Json]) -> None:
    rules[0]["backendRefs"][0]["filters"] = []


def other_filter(rules: list[Json]) -> None:
    rules[0]["backendRefs"][0]["filters"].insert(0, {"type": "RequestHeaderModifier", "requestHeaderModifier": {}})


MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "docs", "port": 80}}}


def mirror_everybody(rules: list[Json]) -> None:
    rules[0]["filters"].append(MIRROR)


def mirror_a_slot(rules: list[Json]) -> None:
    rules[2]["backendRefs"][0]["filters"].append(MIRROR)


def mirror_first(rules: list[Json]) -> None:
    rules[0]["backendRefs"][1]["filters"].insert(0, MIRROR)


def another_header(rules: list[Json]) -> None:
    rules[1]["filters"][0]["responseHeaderModifier"]["set"].append({"name": "x-team", "value": "search"})


def no_revision(rules: list[Json]) -> None:
    del rules[0]["filters"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (mirror_everybody, "everybody RequestMirror"),
        (mirror_a_slot, "green RequestMirror"),
        (mirror_first, "everybody RequestMirror"),
        (another_header, "blue ResponseHeaderModifier, blue no servepath-revision: 3"),
        (no_revision, "everybody no servepath-revision: 3"),
    ],
)
async def test_a_filter_that_somebody_added_is_named_and_not_dropped(
    edit: Callable[[list[Json]], None], named: str
) -> None:
    state = walked(begun(RouteState(Slot.BLUE), canary(Slot.GREEN)), 2)
    route = render_route(await route_manifest(), SPEC, GatewayRef(), ("a.test",), state)
    edit(route["spec"]["rules"])
    with pytest.raises(ClusterError) as caught:
        read_state(route)
    assert caught.value.what == f"somebody changed it: its rules have other filters ({named})"


EDITS = [
    add_rule,
    add_redirect,
    add_backend,
    add_backend_to_a_slot,
    remove_rule,
    remove_matches,
    remove_filters,
    empty_filters,
    other_filter,
]


@pytest.mark.anyio
@pytest.mark.parametrize("edit", EDITS)
async def test_a_route_whose_rules_somebody_changed_is_not_taken_for_ours(edit: Callable[[list[Json]], None]) -> None:
    state = walked(begun(RouteState(Slot.BLUE), canary(Slot.GREEN)), 2)
    route = render_route(await route_manifest(), SPEC, GatewayRef(), ("a.test",), state)
    edit(route["spec"]["rules"])
    with pytest.raises(ClusterError, match="somebody changed it: its rules"):
        read_state(route)


@pytest.mark.parametrize("wrong", [(), (5, 25), (25, 5, 100), (5, 5, 100), (-1, 100), (5, 101)])
def test_steps_that_do_not_rise_to_100_are_refused(wrong: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="steps"):
        CanaryPlan(steps_percent=wrong)


def test_a_plan_out_of_range_is_refused() -> None:
    for name, value in {"hold_s": 0.0, "max_extensions": -1, "max_error_rate": float("nan")}.items():
        with pytest.raises(UsageError, match=name):
            CanaryPlan(**{name: value})  # type: ignore[arg-type]
    plan = CanaryPlan()
    with pytest.raises(UsageError, match="rate_per_s"):
        replace(plan, client=replace(plan.client, rate_per_s=0))
