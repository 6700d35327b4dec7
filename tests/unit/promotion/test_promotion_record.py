"""The state machine of a promotion, and what is read back of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.errors import ClusterError
from servepath.promotion.record import Record, Remedy, Stage, State, advance, begin_undo, end, from_json, to_json
from tests.unit.promotion.examples import record

NOW = "2026-01-02T03:05:00+00:00"
MOVES = st.one_of(
    st.sampled_from(Stage), st.just("undo"), st.sampled_from([State.SUCCEEDED, State.ROLLED_BACK, State.RUNNING])
)


def move(one: Record, what: Stage | State | str) -> Record:
    if isinstance(what, Stage):
        return advance(one, what)
    return end(one, what, NOW) if isinstance(what, State) else begin_undo(one, "a reason")


@given(st.lists(MOVES, max_size=12))
def test_whatever_is_tried_a_record_is_over_only_by_the_last_stage_or_by_being_undone(
    moves: list[Stage | State | str],
) -> None:
    one, passed = record(), [Stage.PLAN]
    for what in moves:
        before = one
        try:
            one = move(one, what)
        except ValueError:
            assert one is before
            continue
        assert not before.is_over
        if isinstance(what, Stage):
            passed.append(what)
    assert passed == list(Stage)[: len(passed)], "no stage is left out"
    if one.state is State.SUCCEEDED:
        assert passed == list(Stage)
    assert one.is_over == (one.remedy is Remedy.NONE) == bool(one.ended_at)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_killed_promotion_is_finished_after_the_shift_and_undone_before(stage: Stage) -> None:
    running = record(stage=stage)
    assert running.remedy is (Remedy.FINISH if stage is Stage.VERIFY else Remedy.UNDO)
    assert begin_undo(running, "killed").remedy is Remedy.UNDO
    again = begin_undo(begin_undo(running, "slow"), "killed while it was undone")
    assert again.result == "slow"


def test_it_is_read_back_as_it_was_written() -> None:
    one = end(begin_undo(record(stage=Stage.GATE), "too slow"), State.ROLLED_BACK, NOW)
    assert from_json(json.loads(json.dumps(to_json(one))), "x") == one


@pytest.mark.parametrize(
    "change",
    [{"schema": "servepath.promotion/v9"}, {"stage": "nowhere"}, {"spec": {}}, {"spec": None}],
    ids=["schema", "stage", "spec", "no spec"],
)
def test_what_is_no_record_says_where_it_is(change: dict[str, object]) -> None:
    with pytest.raises(ClusterError, match="not a promotion record") as caught:
        from_json(to_json(record()) | change, "ConfigMap serving/smol-promotion-000001")
    assert caught.value.where == "ConfigMap serving/smol-promotion-000001"


def test_a_record_without_a_field_is_refused() -> None:
    document = to_json(replace(record(), who="bob"))
    del document["who"]
    with pytest.raises(ClusterError, match="who"):
        from_json(document, "x")
