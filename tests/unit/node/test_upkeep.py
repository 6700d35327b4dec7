"""What the node's owner reads of a program."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ci.node.process import Process
from ci.node.upkeep import usage_of
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

BUSY = (
    "import time; held = bytearray(64 << 20); end = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
)


def test_memory_and_cpu_time_are_the_programs_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"{BUSY}print('held', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        usage = usage_of(Process("busy", tmp_path / "busy.log", popen))
        popen.kill()
    assert 64 << 20 <= usage.memory_bytes < 200 << 20
    assert 0.2 <= usage.cpu_s < 5.0


def test_a_program_that_has_ended_is_an_error(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as popen:
        popen.wait()
    with pytest.raises(ClusterError, match="true has ended"):
        usage_of(Process("true", tmp_path / "true.log", popen))
