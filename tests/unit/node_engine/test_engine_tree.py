import os
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from ci.node.engine.tree import plan_image, plan_tree
from servepath.modelcar.image.layers import LayerPlan

pytestmark = pytest.mark.anyio


def _root(root: Path) -> Path:
    for name in ("usr/bin", "usr/local/bin", "opt/vllm-cache", "etc/apt", "tmp", "proc", "var/lib/dpkg"):
        (root / name).mkdir(parents=True)
    (root / "usr/bin/python3.11").write_bytes(b"python")
    (root / "usr/bin/python3.11").chmod(0o755)
    (root / "usr/bin/python3").symlink_to("python3.11")
    (root / "usr/local/bin/vllm").write_bytes(b"#!/usr/bin/python3\n")
    (root / "etc/apt/sources.list").write_text("the machine's mirror")
    (root / "etc/hostname").write_text("the machine's name")
    (root / "tmp/left").write_text("over")
    (root / "tmp").chmod(0o1777)
    (root / "var/lib/dpkg/status").write_text("Package: python3")
    return root


async def _bytes(plan: LayerPlan) -> bytes:
    return b"".join([chunk async for chunk in plan.open(lambda _: None)])


async def _archive(plan: LayerPlan) -> tarfile.TarFile:
    return tarfile.open(fileobj=BytesIO(await _bytes(plan)))


async def test_debian_and_python_are_two_layers(tmp_path: Path) -> None:
    base, python = plan_image(_root(tmp_path))
    assert "usr/bin/python3.11" in base.names
    assert "var/lib/dpkg/status" in base.names
    assert python.names == ("usr/local/bin/vllm",)
    assert not set(base.names) & set(python.names)


async def test_the_building_machine_leaves_no_trace(tmp_path: Path) -> None:
    base, _ = plan_image(_root(tmp_path))
    content = await _bytes(base)
    assert b"the machine's" not in content
    assert b"over" not in content


async def test_mount_points_modes_and_links_stay(tmp_path: Path) -> None:
    base, _ = plan_image(_root(tmp_path))
    archive = await _archive(base)
    assert archive.getmember("proc").isdir()
    assert archive.getmember("tmp").mode == 0o1777
    assert archive.getmember("usr/bin/python3.11").mode == 0o755
    assert archive.getmember("usr/bin/python3").linkname == "python3.11"


async def test_same_content_same_bytes_whenever_and_by_whomever_it_was_written(tmp_path: Path) -> None:
    first, second = _root(tmp_path / "a"), _root(tmp_path / "b")
    os.utime(second / "usr/bin/python3.11", (1, 1))
    if os.geteuid() == 0:
        os.chown(second / "usr/bin/python3.11", 1000, 1000)
    assert [await _bytes(plan) for plan in plan_image(first)] == [await _bytes(plan) for plan in plan_image(second)]
    (second / "usr/bin/python3.11").write_bytes(b"another")
    assert await _bytes(plan_image(first)[0]) != await _bytes(plan_image(second)[0])


async def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    root = _root(tmp_path)
    os.mkfifo(root / "usr/bin/pipe")
    assert "usr/bin/pipe" not in [member.name for member in plan_tree(root, lambda _: True).members]
