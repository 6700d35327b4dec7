# ruff: noqa: ASYNC240 - a test has nothing else to do while it waits
from __future__ import annotations

import socket
import sys
from pathlib import Path

import anyio
import pytest

from ci.node import process
from servepath.errors import ClusterError

pytestmark = pytest.mark.anyio


async def _never() -> bool:
    return False


async def test_a_program_that_dies_early_is_reported_with_its_last_line_and_where_the_others_are(
    tmp_path: Path,
) -> None:
    command = ["sh", "-c", "seq 40; echo no such flag >&2; exit 3"]
    with pytest.raises(ClusterError) as caught:
        await process.start("broken", command, logs=tmp_path, ready=_never)
    assert caught.value.what == "broken ended with status 3 before it was ready: no such flag"
    assert caught.value.where == str(tmp_path / "broken.log")
    assert "40\nno such flag" in (tmp_path / "broken.log").read_text()


async def test_a_program_that_never_serves_is_stopped_at_the_limit(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo $$; exec sleep 60"]
    with pytest.raises(ClusterError, match="slow was not ready within 0 s"):
        await process.start("slow", command, logs=tmp_path, ready=_never, timeout_s=0.3)
    assert not Path("/proc", (tmp_path / "slow.log").read_text().strip()).exists()


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo $$; exec sleep 60"]
    with anyio.move_on_after(0.3):
        await process.start("cancelled", command, logs=tmp_path, ready=_never)
    assert not Path("/proc", (tmp_path / "cancelled.log").read_text().strip()).exists()


async def test_a_program_is_ready_when_it_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    probe = process.answers(f"http://127.0.0.1:{port}/")
    assert not await probe()
    running = await process.start("http", command, logs=tmp_path, ready=probe, environment={"PYTHONUNBUFFERED": "1"})
    assert await probe()
    assert not await process.answers(f"http://127.0.0.1:{port}/missing")()
    await running.stop()
    assert not await probe()
    assert "missing" in running.log.read_text()


async def test_a_program_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    async def ignores_by_now() -> bool:
        return "ready" in (tmp_path / "stubborn.log").read_text()

    command = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
    running = await process.start("stubborn", command, logs=tmp_path, ready=ignores_by_now)
    await running.stop(grace_s=0.3)
    assert running.popen.returncode == -9


async def test_a_unix_socket_is_ready_when_it_accepts(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not await process.listens(path)()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not await process.listens(path)()
        server.listen()
        assert await process.listens(path)()
