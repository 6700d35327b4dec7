"""Go programs built from pinned modules, once.

A program's folder in the cache is named by the digest of everything that it is built from, so a second run finds it
and a changed pin does not. Go verifies each download against go.sum.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node.said import last_line
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent / "go"


@dataclass(frozen=True, slots=True)
class GoProgram:
    """One program and how to build it.

    Attributes:
        name: the program's name, and its file's name in the built folder.
        module: our Go module, a folder with go.mod and go.sum, that pins everything.
        package: what to build, `.` for the module's own main package, or an import path that go.mod requires.
        dependency: build inside this dependency's own module (`github.com/kserve/kserve`), where its own replaces
            and versions apply instead of ours; `package` is then relative to it (`./cmd/manager`).
        ldflags: linker flags besides `-s -w`, such as version stamps.
        tags: Go build tags.
        aliases: further names of the same file, as links: for programs that look at argv[0].
    """

    name: str
    module: Path
    package: str = "."
    dependency: str = ""
    ldflags: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = field(default=())


def key(program: GoProgram) -> str:
    """The sha256 of the module's files and of the flags, in hex.

    Raises:
        ClusterError: go.mod or go.sum is missing, so nothing would be pinned.
    """
    digest = sha256()
    for required in ("go.mod", "go.sum"):
        if not (program.module / required).is_file():
            raise ClusterError(f"a Go program needs {required}", where=str(program.module), next_command="go mod tidy")
    for path in _sources(program.module):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(program.module)}\0{len(content)}\0".encode() + content)
    flags = (program.package, program.dependency, program.ldflags, program.tags, program.aliases)
    digest.update(json.dumps(flags).encode())
    return digest.hexdigest()


def target(program: GoProgram, cache: Path) -> Path:
    """The folder that holds the program once it is built."""
    return cache / "programs" / f"{program.name}-{key(program)}"


async def build(program: GoProgram, cache: Path) -> Path:
    """Return the folder `<cache>/programs/<name>-<key>` that holds the program and its aliases, building it if missing.

    Raises:
        ClusterError: Go is missing, a download failed or the code does not compile. What Go said is in
            `<cache>/programs/<name>.log`.
    """
    folder = target(program, cache)
    if folder.is_dir():
        return folder
    if shutil.which("go") is None:
        raise ClusterError("Go is not installed", where=program.name, expected="go 1.24 or newer on PATH")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{program.name}-", dir=folder.parent))
    try:
        await _go_build(program, scratch / program.name, folder.parent / f"{program.name}.log")
        _publish(program, scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


async def _go_build(program: GoProgram, output: Path, log: Path) -> None:
    folder = program.module
    if program.dependency:
        folder = await _dependency_folder(program, log)
    tags = [f"-tags={','.join(program.tags)}"] if program.tags else []
    ldflags = " ".join(("-s", "-w", *program.ldflags))
    await _go(
        program,
        ["go", "build", "-trimpath", "-buildvcs=false", *tags, f"-ldflags={ldflags}", f"-o={output}", program.package],
        folder,
        log,
    )


async def _dependency_folder(program: GoProgram, log: Path) -> Path:
    version = await _go(program, ["go", "list", "-m", "-f={{.Version}}", program.dependency], program.module, log)
    download = ["go", "mod", "download", "-json", f"{program.dependency}@{version.strip()}"]
    return Path(json.loads(await _go(program, download, program.module, log))["Dir"])


async def _go(program: GoProgram, command: list[str], folder: Path, log: Path) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    done = await anyio.run_process(command, cwd=folder, env=environment, check=False, stderr=subprocess.PIPE)
    if done.returncode:
        await anyio.Path(log).write_bytes(done.stderr)
        raise ClusterError(
            f"building {program.name} failed: {last_line(done.stderr.decode(errors='replace'))}",
            where=str(log),
            next_command=f"cd {folder} && {shlex.join(command)}",
        )
    return done.stdout.decode()


def _publish(program: GoProgram, scratch: Path, folder: Path) -> None:
    for alias in program.aliases:
        (scratch / alias).symlink_to(program.name)
    scratch.chmod(0o755)
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process built the same thing first, and either will do
            raise


def _sources(module: Path) -> Iterator[Path]:
    yield from sorted(path for path in module.rglob("*") if path.is_file())
