"""Stages: timed, kept in the order of their start, failed when they raise."""

from __future__ import annotations

import time

import pytest

from servepath.evidence import StageTiming, Verdict
from servepath.stages import Stages


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, name: str) -> None:
        self.told.append(f"started {name}")

    def noted(self, name: str, detail: str) -> None:
        self.told.append(f"noted {name} {detail}")

    def ended(self, timing: StageTiming) -> None:
        self.told.append(f"ended {timing.name} {timing.verdict} {timing.detail}")


def test_a_stage_is_shown_timed_and_keeps_its_last_note() -> None:
    recorder = Recorder()
    stages = Stages(recorder, time.time() - 5)
    with stages.stage("push") as note:
        note("1 of 2")
        note("2 of 2")
        time.sleep(0.02)
    (timing,) = stages.timings
    assert timing.verdict is Verdict.PASS
    assert timing.detail == "2 of 2"
    assert 0.02 <= timing.duration_s < 1
    assert 5 <= timing.start_s < 6
    assert recorder.told == ["started push", "noted push 1 of 2", "noted push 2 of 2", "ended push pass 2 of 2"]


def test_a_stage_that_raises_is_kept_as_failed_and_the_error_goes_on() -> None:
    stages = Stages(Recorder(), time.time())
    with pytest.raises(ValueError, match="no"), stages.stage("deploy"):
        raise ValueError("no")
    assert [(timing.name, timing.verdict) for timing in stages.timings] == [("deploy", Verdict.FAIL)]


def test_timings_are_in_the_order_of_start_with_those_of_an_earlier_process() -> None:
    earlier = StageTiming("build", 0.0, 3.0, Verdict.PASS)
    stages = Stages(Recorder(), time.time() - 10, [earlier])
    with stages.stage("outer"), stages.stage("inner"):
        pass
    assert [timing.name for timing in stages.timings] == ["build", "outer", "inner"]
