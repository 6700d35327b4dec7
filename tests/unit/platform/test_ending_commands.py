"""Running a command, and ending it in good order when nobody waits for it any more."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.errors import ClusterError
from servepath.platform import commands
from servepath.platform.commands import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

LOOP = 'touch "$0.began"; while :; do sleep 0.02; done'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def program(folder: Path, script: str) -> Path:
    path = folder / "helm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


async def cancelled(path: Path) -> None:
    """Run a program and cancel it once it has begun."""
    async with anyio.create_task_group() as group:
        group.start_soon(run, [str(path)])
        with anyio.fail_after(10):
            while not path.with_name(f"{path.name}.began").exists():  # noqa: ASYNC110 - another process makes it
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def test_what_a_command_prints_and_its_status_are_given(tmp_path: Path) -> None:
    done = await run([str(program(tmp_path, "echo said; echo complained >&2; cat; exit 3"))])
    assert (done.output, done.error, done.status) == ("said\n", "complained\n", 3)
    with pytest.raises(ClusterError, match="complained"):
        done.succeeded()


async def test_a_cancelled_command_puts_its_work_away_before_the_cancellation_goes_on(tmp_path: Path) -> None:
    putting_away = 'sleep 0.3; head -c 1000000 /dev/zero; touch "$0.put-away"; exit 1'
    await cancelled(program(tmp_path, f"trap '{putting_away}' TERM\n{LOOP}"))
    assert (tmp_path / "helm.put-away").exists()


async def test_a_command_that_does_not_end_when_asked_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "ENDING_S", 0.2)
    began = time.monotonic()
    await cancelled(program(tmp_path, f"echo $$ > \"$0.pid\"\ntrap '' TERM\n{LOOP}"))
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "helm.pid").read_text()), 0)


async def test_a_child_that_outlives_a_cancelled_command_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    await cancelled(program(tmp_path, 'sleep 15 & touch "$0.began"; wait'))
    assert time.monotonic() - began < 10
