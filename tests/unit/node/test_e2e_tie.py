# ruff: noqa: ASYNC240 - a test has nothing else to do while it waits
"""The outer and the inner process of the main job: whichever ends, and however, the other knows and nothing is left."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from ci.node import e2e, holder
from ci.node.e2e import Choices, Handover, Job, do_job, run_tied
from ci.node.layout import Layout
from servepath.bench.capacity import SweepDesign
from servepath.bench.model import Arrivals, BenchPlan
from servepath.errors import ClusterError
from servepath.evidence import StageTiming, Verdict

pytestmark = pytest.mark.anyio

needs_holder = pytest.mark.skipif(
    platform.system() != "Linux" or os.geteuid() != 0 or shutil.which("tini") is None,
    reason="needs root on Linux, and tini",
)
STAGES = (StageTiming("preflight", 0.0, 0.5, Verdict.PASS, "all there"), StageTiming("x", 1.0, 2.0, Verdict.FAIL))

# What the inner process does with its work: begin it, say so, and put it away when it is cancelled.
TIED = """
import sys
import anyio
from pathlib import Path
from ci.node.e2e import tied_to_standard_input

folder = Path(sys.argv[1])

async def work():
    (folder / "begun").touch()
    try:
        await anyio.sleep(float(sys.argv[2]))
        return "done"
    finally:
        (folder / "put-away").touch()

(folder / "result").write_text(repr(anyio.run(tied_to_standard_input, work)))
"""
OUTER = """
import sys
import anyio
from ci.node.e2e import run_tied

anyio.run(run_tied, sys.argv[1:], {})
"""


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    plan = BenchPlan(blocks=6, arrivals=Arrivals.POISSON, seed=7)
    return Choices(str(tmp_path / "report"), "tiny", "", "", "", "cpu-small", keep=False, plan=plan)


@pytest.fixture
def handover(choices: Choices) -> Handover:
    return Handover(choices, "/models/tiny", "tiny", "python -m ci.node e2e", 1700000000.25, STAGES)


def tied(folder: Path, work_s: float) -> list[str]:
    return [sys.executable, "-c", TIED, str(folder), str(work_s)]


def environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


async def appears(path: Path) -> None:
    with anyio.fail_after(30):
        while not path.exists():  # noqa: ASYNC110 - another process makes it
            await anyio.sleep(0.02)


def test_a_handover_is_read_as_it_was_written(handover: Handover, tmp_path: Path) -> None:
    handover.write(tmp_path / "handover.json")
    again = Handover.read(tmp_path / "handover.json")
    assert again == handover
    assert isinstance(again.choices.plan.arrivals, Arrivals)
    assert [stage.verdict is Verdict.FAIL for stage in again.stages] == [False, True]


def test_a_sweep_is_handed_over(handover: Handover, tmp_path: Path) -> None:
    design = SweepDesign(rates_per_s=(0.5, 1.0), usd_per_hour=3.6)
    told = replace(handover, choices=replace(handover.choices, sweep=design, lifecycle=True))
    told.write(tmp_path / "handover.json")
    assert Handover.read(tmp_path / "handover.json") == told


def test_work_that_ends_gives_its_result_while_standard_input_is_open(tmp_path: Path) -> None:
    with subprocess.Popen(tied(tmp_path, 0), stdin=subprocess.PIPE, env={**os.environ, **environment()}) as running:
        assert running.wait(timeout=30) == 0
    assert (tmp_path / "result").read_text() == "'done'"


async def test_work_is_cancelled_and_gives_none_when_standard_input_closes(tmp_path: Path) -> None:
    command = tied(tmp_path, 1000)
    async with await anyio.open_process(command, stdin=subprocess.PIPE, env={**os.environ, **environment()}) as running:
        await appears(tmp_path / "begun")
        assert not (tmp_path / "put-away").exists()
        assert running.stdin is not None
        await running.stdin.aclose()
        with anyio.fail_after(30):
            assert await running.wait() == 0
    assert (tmp_path / "put-away").exists()
    assert (tmp_path / "result").read_text() == "None"


async def test_the_exit_code_of_a_tied_process_is_given_and_a_signal_as_its_negative() -> None:
    assert await run_tied(["sh", "-c", "exit 6"], {}) == 6
    assert await run_tied(["sh", "-c", "kill -9 $$"], {}) == -signal.SIGKILL
    assert await run_tied(["sh", "-c", '[ "$PLANTED" = here ]'], {"PLANTED": "here"}) == 0


async def test_a_cancelled_outer_process_waits_until_the_inner_one_has_put_everything_away(tmp_path: Path) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run_tied, tied(tmp_path, 1000), environment())
        await appears(tmp_path / "begun")
        group.cancel_scope.cancel()
    assert (tmp_path / "put-away").exists()
    assert (tmp_path / "result").read_text() == "None"


async def test_an_outer_process_that_is_killed_lets_the_inner_one_put_everything_away(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OUTER, *tied(tmp_path, 1000)]
    with subprocess.Popen(command, env={**os.environ, **environment()}) as outer:  # noqa: ASYNC220
        await appears(tmp_path / "begun")
        outer.kill()
        outer.wait()
    await appears(tmp_path / "result")
    assert (tmp_path / "put-away").exists()
    assert (tmp_path / "result").read_text() == "None"


def inner_is(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a shell script be the inner process: it is entered and tied as the real one is."""
    path = tmp_path / "inner"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def report_of(handover: Handover) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(handover.choices.report) / "report.json").read_text())
    return document


@needs_holder
async def test_an_inner_process_that_is_killed_ends_the_holder_and_is_reported(
    handover: Handover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(cache=tmp_path / "cache", name="tie")
    inner_is("kill -9 $$", monkeypatch, tmp_path)
    with pytest.raises(ClusterError, match="was killed by SIGKILL") as caught:
        await do_job(layout, Job(handover, tmp_path))
    assert caught.value.next_command
    assert holder.current(layout) is None
    assert not layout.run.exists()
    document = report_of(handover)
    assert document["error"]["exit_code"] == 5
    assert [stage["name"] for stage in document["stages"]] == ["preflight", "x"]


@needs_holder
@pytest.mark.parametrize("keep", [False, True])
async def test_the_holder_ends_with_the_job_unless_it_is_kept(
    handover: Handover,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    keep: bool,
) -> None:
    layout = Layout(cache=tmp_path / "cache", name="tie")
    # It is given the handover's file, inside the holder, and one end of the tie.
    inner_is('[ "$(cat /proc/1/comm)" = tini ] && grep -q preflight "$4" && exit 7', monkeypatch, tmp_path)
    try:
        choices = replace(handover.choices, keep=keep)
        assert await do_job(layout, Job(replace(handover, choices=choices), tmp_path)) == 7
        assert (holder.current(layout) is not None) == keep
        assert ("make down" in capsys.readouterr().err) == keep
    finally:
        await holder.stop(layout)


@needs_holder
async def test_a_run_that_another_one_replaces_says_so_and_leaves_the_other_alone(
    handover: Handover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(cache=tmp_path / "cache", name="tie")
    inner_is(f"touch {tmp_path}/begun; exec sleep 1000", monkeypatch, tmp_path)
    caught: list[BaseException] = []

    async def first() -> None:
        try:
            await do_job(layout, Job(handover, tmp_path))
        except ClusterError as error:
            caught.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await appears(tmp_path / "begun")
        second = await holder.start(layout)
    try:
        assert "SIGKILL" in str(caught[0])
        assert "second run" in str(caught[0])
        assert holder.current(layout) == second
    finally:
        await holder.stop(layout)


@needs_holder
async def test_ports_that_are_taken_outside_are_free_inside(tmp_path: Path) -> None:
    layout = Layout(cache=tmp_path / "cache", name="tie")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bind = f"import socket; socket.create_server(('127.0.0.1', {port}))"
        outside = await anyio.run_process([sys.executable, "-c", bind], check=False)
        assert b"Address already in use" in outside.stderr
        async with holder.held(layout) as running:
            inside = holder.enter(running, [sys.executable, "-c", bind])
            assert (await anyio.run_process(inside, check=False)).returncode == 0


def test_the_inner_command_is_refused_outside_a_holder_where_process_1_is_not_ours() -> None:
    if holder.is_inside():
        pytest.skip("this is inside a holder")
    done = subprocess.run(
        [sys.executable, "-m", "ci.node", e2e.INNER_COMMAND, "handover.json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "inside a holder only" in done.stderr
    assert "next: python -m ci.node e2e" in done.stderr
