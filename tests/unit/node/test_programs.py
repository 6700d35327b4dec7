# ruff: noqa: ASYNC221 - a test has nothing else to do while it waits
from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ci.node import programs
from ci.node.kubernetes import HELM, KUBERNETES
from ci.node.programs import GoProgram
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

MAIN = """package main

import (
	"os"
	"path/filepath"
)

var version = "none"

func main() { println(filepath.Base(os.Args[0]), version) }
"""

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")


@pytest.fixture
def hello(tmp_path: Path) -> GoProgram:
    module = tmp_path / "module"
    module.mkdir()
    (module / "go.mod").write_text("module example.test/hello\n\ngo 1.24\n")
    (module / "go.sum").write_text("")
    (module / "main.go").write_text(MAIN)
    return GoProgram(name="hello", module=module, ldflags=("-X=main.version=v1",), aliases=("alias",))


@needs_go
async def test_build_gives_the_program_under_every_name_and_only_once(hello: GoProgram, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = await programs.build(hello, cache)
    said = [subprocess.run([folder / name], capture_output=True, check=True) for name in ("hello", "alias")]
    assert [done.stderr for done in said] == [b"hello v1\n", b"alias v1\n"]
    built = (folder / "hello").stat().st_mtime_ns
    assert await programs.build(hello, cache) == folder
    assert (folder / "hello").stat().st_mtime_ns == built
    assert [entry.name for entry in (cache / "programs").iterdir()] == [folder.name]


@needs_go
async def test_code_that_does_not_compile_is_an_error_and_leaves_nothing(hello: GoProgram, tmp_path: Path) -> None:
    (hello.module / "main.go").write_text("package main\n\nfunc main() { nonsense }\n")
    with pytest.raises(ClusterError, match="undefined: nonsense") as caught:
        await programs.build(hello, tmp_path / "cache")
    assert "\n" not in caught.value.what
    log = tmp_path / "cache" / "programs" / "hello.log"
    assert caught.value.where == str(log)
    assert "undefined: nonsense" in log.read_text()
    assert list(log.parent.iterdir()) == [log]


async def test_without_go_the_error_says_so(hello: GoProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="Go is not installed"):
        await programs.build(hello, tmp_path / "cache")


def test_the_key_changes_with_whatever_the_program_is_built_from(hello: GoProgram) -> None:
    keys = {programs.key(hello)}
    keys.add(programs.key(replace(hello, ldflags=())))
    keys.add(programs.key(replace(hello, package="./cmd")))
    keys.add(programs.key(replace(hello, tags=("extra",))))
    keys.add(programs.key(replace(hello, dependency="example.test/other")))
    keys.add(programs.key(replace(hello, aliases=())))
    for name in ("go.sum", "main.go", "go.mod"):
        (hello.module / name).write_text("changed")
        keys.add(programs.key(hello))
    assert len(keys) == 9


def test_a_module_without_checksums_is_refused(hello: GoProgram) -> None:
    (hello.module / "go.sum").unlink()
    with pytest.raises(ClusterError, match=r"needs go\.sum"):
        programs.key(hello)


def test_every_program_of_the_node_is_pinned() -> None:
    pins = (KUBERNETES.module / "go.mod").read_text()
    assert "k8s.io/kubernetes v1.34.4\n" in pins
    assert pins.count("v0.34.4\n") >= 31
    assert programs.key(KUBERNETES) != programs.key(HELM)
