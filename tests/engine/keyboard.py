"""A program on a terminal of its own, which waits to be typed into."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


@dataclass
class Keyboard:
    """What is typed into the program, and what it has shown."""

    process: subprocess.Popen[bytes]
    shown: bytearray = field(default_factory=bytearray)

    def type(self, line: str) -> None:
        """Type a line."""
        stdin: Any = self.process.stdin
        stdin.write(f"{line}\n".encode())
        stdin.flush()

    def wait_for(self, pattern: str, timeout_s: float) -> str:
        """Read until a pattern is shown that was not there before, and give what was shown up to then.

        Raises:
            AssertionError: the program ended or the time was over before.
        """
        stdout: Any = self.process.stdout
        wanted, begin, deadline = re.compile(pattern.encode()), len(self.shown), time.monotonic() + timeout_s
        while not wanted.search(text := _ESCAPES.sub(b"", bytes(self.shown[begin:]))):
            readable, _, _ = select.select([stdout], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(stdout.fileno(), 65536) if readable else b""
            assert chunk, f"{pattern!r} was not shown: {text[-2000:].decode(errors='replace')}"
            self.shown += chunk
        return text.decode(errors="replace")


@contextmanager
def typed_into(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Keyboard]:
    """Run a command on a terminal of 120 by 40 characters; it is ended with the context."""
    sized = f"stty cols 120 rows 40; exec {shlex.join(command)}"
    script = ["script", "--quiet", "--return", "--flush", "--command", sized, "/dev/null"]
    with subprocess.Popen(
        script, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield Keyboard(process)
        finally:
            process.terminate()
