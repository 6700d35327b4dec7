"""One process, measured from outside by what the kernel counted for it and its children."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servepath.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COUNTED = Path(__file__).with_name("counted.py")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command cost.

    Attributes:
        wall_s: from its start to its end.
        cpu_s: user and system time of it and the children that it awaited.
        memory_bytes: the largest resident set of one of its processes.
        written_bytes: bytes that it made dirty in files of a disk.
    """

    wall_s: float
    cpu_s: float
    memory_bytes: int
    written_bytes: int


def run(command: Sequence[str], *, directory: Path, environment: Mapping[str, str], log: Path) -> Cost:
    """Run a command to its end.

    Args:
        command: the command line.
        directory: where it runs.
        environment: all of its variables.
        log: takes its output.

    Raises:
        CheckFailedError: it failed, with the last line that it said.
    """
    counting = [sys.executable, "-I", "-S", str(_COUNTED), str(log), *command]
    done = subprocess.run(counting, cwd=directory, env=environment, check=True, stdout=subprocess.PIPE)
    seen = json.loads(done.stdout)
    if seen["exit_code"]:
        lines = log.read_text(errors="replace").splitlines() or [""]
        raise CheckFailedError(
            f"{command[0]} ended with status {seen['exit_code']}: {lines[-1]}",
            where=str(directory),
            next_command=shlex.join(command),
        )
    return Cost(seen["wall_s"], seen["cpu_s"], seen["memory_bytes"], seen["written_bytes"])
