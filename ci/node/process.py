"""Programs that run inside the holder until it ends."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import httpx

from ci.node.said import last_line
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path
    from ssl import SSLContext

Probe = Callable[[], Awaitable[bool]]

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A program that was started.

    Attributes:
        name: the program's name, for messages.
        log: the file that its output goes to.
        popen: the process itself.
    """

    name: str
    log: Path
    popen: subprocess.Popen[bytes] = field(repr=False)

    def last_line(self) -> str:
        """The last line of its log."""
        return last_line(self.log.read_text(errors="replace"))

    async def stop(self, grace_s: float = 10) -> None:
        """Ask it to end, and kill it after `grace_s` seconds."""
        if self.popen.poll() is not None:
            return
        self.popen.terminate()
        handle = os.pidfd_open(self.popen.pid)
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(grace_s):
                await anyio.wait_readable(handle)
        finally:
            os.close(handle)
        self.popen.kill()
        self.popen.wait()


async def start(  # noqa: PLR0913 - the parts of one started program
    name: str,
    command: Sequence[str],
    *,
    logs: Path,
    ready: Probe,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> Process:
    """Start a program that outlives this process, and return once it is ready.

    Args:
        name: its name, also of its log file `<logs>/<name>.log`.
        command: the command line.
        logs: the folder for log files.
        ready: answers whether it serves now; asked again and again.
        environment: variables on top of this process's own.
        timeout_s: how long to wait for it, in seconds.

    Raises:
        ClusterError: it died or was not ready in time, with the last line of its log.
    """
    process = _spawn(name, command, logs, environment or {})
    try:
        with anyio.fail_after(timeout_s):
            await _until_ready(process, ready)
    except BaseException as error:
        await process.stop()
        if isinstance(error, TimeoutError):
            raise _failure(process, f"{name} was not ready within {timeout_s:.0f} s") from None
        raise
    return process


async def _until_ready(process: Process, ready: Probe) -> None:
    while not await ready():
        status = process.popen.poll()
        if status is not None:
            raise _failure(process, f"{process.name} ended with status {status} before it was ready")
        await anyio.sleep(_POLL_S)


def _spawn(name: str, command: Sequence[str], logs: Path, environment: Mapping[str, str]) -> Process:
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    return Process(name, log, popen)


def answers(url: str, tls: SSLContext | None = None) -> Probe:
    """Whether a GET of `url` gives 200."""

    async def probe() -> bool:
        try:
            async with httpx.AsyncClient(verify=tls or False, timeout=2, trust_env=False) as client:
                return (await client.get(url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    return probe


def listens(path: Path) -> Probe:
    """Whether something accepts connections on the unix socket `path`."""

    async def probe() -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
        except OSError:
            return False
        return True

    return probe


def _failure(process: Process, what: str) -> ClusterError:
    return ClusterError(f"{what}: {process.last_line()}", where=str(process.log), next_command=f"less {process.log}")
