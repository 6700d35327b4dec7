from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ci.node import cgroups
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for name in ("cpu,cpuacct", "cpuset", "memory", "unified"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text("")
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    return tmp_path


def test_controllers_are_found_in_both_versions(v1: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert cgroups.controllers(v1) == {"cpu", "cpuacct", "cpuset", "memory"}
    unified = tmp_path_factory.mktemp("v2")
    (unified / "cgroup.controllers").write_text("cpu memory pids\n")
    assert cgroups.controllers(unified) == {"cpu", "memory", "pids"}


def test_v1_makes_the_group_in_each_hierarchy(v1: Path) -> None:
    cgroups.create("node", v1)
    assert sorted(str(path.relative_to(v1)) for path in v1.glob("*/node")) == [
        "cpu,cpuacct/node",
        "cpu/node",
        "cpuset/node",
        "memory/node",
        "unified/node",
    ]


def test_v2_enables_the_controllers_for_the_group_and_below(v2: Path) -> None:
    cgroups.create("node", v2)
    assert (v2 / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (v2 / "node" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_a_machine_that_does_not_own_its_groups_is_told_so(v2: Path) -> None:
    (v2 / "cgroup.subtree_control").mkdir()  # a write to it fails, as in a container
    with pytest.raises(ClusterError, match="control group could not be made") as caught:
        cgroups.create("node", v2)
    assert "--privileged" in caught.value.next_command
