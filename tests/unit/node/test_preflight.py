from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ci.node import preflight
from ci.node.layout import Layout
from ci.node.preflight import GB, Facts
from servepath.errors import ClusterError

GOOD = Facts(
    system="Linux",
    machine="x86_64",
    uid=0,
    controllers=frozenset({"cpu", "cpuset", "memory", "pids", "blkio"}),
    filesystems=frozenset({"ext4", "overlay"}),
    cache=Path("/cache"),
    disk_free_bytes=26 * GB,
    is_warm=False,
    memory_available_bytes=13 * GB,
)


def test_a_good_machine_passes() -> None:
    preflight.check(GOOD)


def test_a_warm_cache_needs_less_disk() -> None:
    preflight.check(replace(GOOD, disk_free_bytes=9 * GB, is_warm=True))


@pytest.mark.parametrize(
    ("facts", "message", "next_command"),
    [
        (replace(GOOD, system="Darwin"), "Linux on x86_64", "dagger call e2e"),
        (replace(GOOD, machine="aarch64"), "Linux on aarch64", "dagger call e2e"),
        (replace(GOOD, uid=1000), "needs root", "sudo"),
        (replace(GOOD, controllers=GOOD.controllers - {"memory", "pids"}), "missing: memory, pids", "cgroup_enable"),
        (replace(GOOD, controllers=frozenset()), "missing: cpu, cpuset, memory, pids", "--privileged"),
        (replace(GOOD, filesystems=frozenset({"ext4"})), "no overlayfs", "modprobe overlay"),
        (replace(GOOD, disk_free_bytes=24 * GB), "24.0 GB free; expected 25 GB", "SERVEPATH_CACHE"),
        (replace(GOOD, disk_free_bytes=7 * GB, is_warm=True), "7.0 GB free; expected 8 GB", "SERVEPATH_CACHE"),
        (replace(GOOD, memory_available_bytes=11 * GB), "11.0 GB available; expected 12 GB", "ps -eo"),
    ],
)
def test_each_lack_is_one_line_with_the_next_command(facts: Facts, message: str, next_command: str) -> None:
    with pytest.raises(ClusterError) as caught:
        preflight.check(facts)
    assert message in str(caught.value)
    assert next_command in caught.value.next_command
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_this_machine_is_observed(tmp_path: Path) -> None:
    facts = preflight.observe(Layout(cache=tmp_path / "not" / "there"))
    assert facts.disk_free_bytes > 0
    assert facts.memory_available_bytes > 0
    assert "proc" in facts.filesystems
    assert not facts.is_warm
