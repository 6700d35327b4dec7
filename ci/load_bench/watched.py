"""A program and everything that it starts, watched for the CPU time that they use at any moment."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import numpy as np

from servepath.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERVAL_S = 0.2
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PARENT, FIRST_TIME, AFTER_LAST_TIME = 1, 11, 15
"""Fields of proc_pid_stat(5) after the name: the parent, and utime, stime, cutime, cstime."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A program that has ended.

    Attributes:
        cpu_s: user and system time of it and its children, from start to end.
        wall_s: from start to end.
        readings: (CLOCK_MONOTONIC, CPU time until then), in seconds.
    """

    cpu_s: float
    wall_s: float
    readings: tuple[tuple[float, float], ...]

    def cpu_between_s(self, start_s: float, end_s: float) -> float:
        """CPU time between two times of CLOCK_MONOTONIC, interpolated between readings."""
        times, values = zip(*self.readings, strict=True)
        before, after = np.interp([start_s, end_s], times, values)
        return float(after - before)


async def run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Watched:
    """Run a program to its end; no other child of this process may end meanwhile.

    Args:
        command: the command line.
        environment: all of its variables.
        log: takes its output.

    Raises:
        CheckFailedError: it failed, with the last line that it said.
    """
    started_s, before_s = time.monotonic(), _children_cpu_s()
    readings = [(started_s, 0.0)]
    with log.open("wb") as output:
        async with await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
        ) as process:
            with anyio.CancelScope() as watching:
                async with anyio.create_task_group() as group:
                    group.start_soon(_read, process.pid, readings)
                    await process.wait()
                    watching.cancel()
    wall_s, cpu_s = time.monotonic() - started_s, _children_cpu_s() - before_s
    if process.returncode:
        lines = (await anyio.Path(log).read_text(errors="replace")).splitlines() or [""]
        raise CheckFailedError(f"it ended with status {process.returncode}: {lines[-1]}", where=command[0])
    return Watched(cpu_s, wall_s, (*readings, (started_s + wall_s, cpu_s)))


async def _read(program: int, readings: list[tuple[float, float]]) -> None:
    while True:
        readings.append((time.monotonic(), tree_cpu_s(program)))
        await anyio.sleep(INTERVAL_S)


def tree_cpu_s(program: int) -> float:
    """CPU time of a process and its descendants, and of those that they have awaited."""
    own_s: dict[int, float] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children[int(fields[PARENT])].append(int(folder.name))
            own_s[int(folder.name)] = sum(map(int, fields[FIRST_TIME:AFTER_LAST_TIME])) / TICKS_PER_S
    total_s, waiting = 0.0, [program]
    while waiting:
        process = waiting.pop()
        total_s += own_s.get(process, 0.0)
        waiting += children[process]
    return total_s


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
