# ruff: noqa: ASYNC220, ASYNC240 - a test has nothing else to do while it waits
from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
from pathlib import Path

import anyio
import pytest

from ci.node import cgroups, holder, mount_points
from ci.node.layout import Layout
from servepath.errors import ClusterError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        platform.system() != "Linux" or os.geteuid() != 0 or shutil.which("tini") is None,
        reason="needs root on Linux, and tini",
    ),
]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(cache=tmp_path, name="unit")


def _inside(running: holder.Holder, script: str) -> str:
    command = holder.enter(running, ["sh", "-ec", script])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _traces(layout: Layout) -> list[str]:
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "servepath-run" in line]
    groups = [str(path) for path in cgroups.ROOT.glob(f"**/{layout.cgroup}")]
    return [*mounts, *groups, *(str(path) for path in layout.run.glob("*"))]


async def test_inside_everything_is_private_and_afterwards_nothing_is_left(layout: Layout) -> None:
    panic = Path("/proc/sys/kernel/panic").read_text()
    present = [path for path in mount_points.PATHS if Path(path).exists()]
    async with holder.held(layout) as running:
        assert holder.current(layout) == running
        assert _inside(running, "pwd").strip() == str(Path.cwd())
        assert _inside(running, "cat /proc/1/comm").strip() == "tini"
        assert _inside(running, "hostname").strip() == "servepath-unit"
        assert _inside(running, "ls -d /run/servepath").strip() == "/run/servepath"
        assert "default" not in _inside(running, "ip route")
        assert _inside(running, "cat /proc/sys/kernel/panic").strip() == "10"
        assert Path("/proc/sys/kernel/panic").read_text() == panic
        _inside(running, "touch /var/lib/kubelet/x && sleep 1000 >/dev/null 2>&1 &")
        assert not Path("/var/lib/kubelet/x").exists()
        assert not holder.is_inside()
    assert holder.current(layout) is None
    assert _traces(layout) == []
    assert [path for path in mount_points.PATHS if Path(path).exists()] == present


async def test_a_kill_leaves_nothing_that_the_next_start_does_not_clear(layout: Layout) -> None:
    first = await holder.start(layout)
    pod = cgroups.ROOT / ("" if cgroups.is_unified() else "pids") / layout.cgroup / "kubepods" / "pod1"
    pod.mkdir(parents=True)
    os.kill(first.pid, signal.SIGKILL)
    second = await holder.start(layout)
    try:
        assert second.pid != first.pid
        assert not pod.exists()
        assert _inside(second, "ip -brief address show dev node0").split()[2] == f"{holder.NODE_ADDRESS}/24"
    finally:
        assert await holder.stop(layout)
    assert not await holder.stop(layout)
    assert _traces(layout) == []


async def test_a_second_start_ends_the_first(layout: Layout) -> None:
    first = await holder.start(layout)
    second = await holder.start(layout)
    assert first != second
    assert not Path("/proc", str(first.pid)).exists()
    await holder.stop(layout)


async def test_a_launcher_that_dies_before_the_record_takes_its_holder_along(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[holder.Holder] = []

    def killed_here(_layout: Layout, running: holder.Holder) -> None:
        seen.append(running)
        raise KeyboardInterrupt

    monkeypatch.setattr(holder, "_write_record", killed_here)
    with pytest.raises(KeyboardInterrupt):
        await holder.start(layout)
    with anyio.fail_after(5):
        while Path("/proc", str(seen[0].pid)).exists():  # noqa: ASYNC110 - another process's end
            await anyio.sleep(0.01)


async def test_two_nodes_live_side_by_side(layout: Layout) -> None:
    other = Layout(cache=layout.cache, name="other")
    async with holder.held(layout) as one:
        async with holder.held(other) as two:
            assert one.cgroup != two.cgroup
        # The folders that both mount over are still there for the one that remains.
        assert "/var/lib/kubelet" in _inside(one, "cat /proc/mounts")


async def test_a_record_of_another_process_is_not_believed(layout: Layout) -> None:
    running = await holder.start(layout)
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        stale = holder.Holder(bystander.pid, running.started - 1, running.boot, running.cgroup)
        await holder.stop(layout)
        holder._write_record(layout, stale)
        assert holder.current(layout) is None
        assert await holder.stop(layout)
        assert bystander.poll() is None
        bystander.kill()


async def test_two_starts_at_once_are_refused(layout: Layout) -> None:
    layout.state.mkdir(parents=True)
    with holder._lock(layout), pytest.raises(ClusterError, match="starts or stops this node right now"):
        await holder.start(layout)
