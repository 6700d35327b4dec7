"""Files of pinned Go modules, such as CRDs: kept in the cache, so that a later run needs neither Go nor a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node import programs
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from ci.node.programs import GoProgram


async def keep(program: GoProgram, module: str, path: str, cache: Path) -> Path:
    """Copy a file or folder of a Go module that a program's go.mod pins.

    Args:
        program: names our Go module; its go.sum verifies what is downloaded.
        module: the module that has the file, such as `sigs.k8s.io/gateway-api`.
        path: the file or folder in it.
        cache: the node's cache.

    Returns:
        `<cache>/files/<program>-<key>/<path>`.

    Raises:
        ClusterError: the module could not be had, or has no such file.
    """
    target = cache / "files" / f"{program.name}-{programs.key(program)}" / module / path
    if target.exists():
        return target
    source = await _folder(program, module) / path
    if not source.exists():
        raise ClusterError(f"the Go module {module} has no {path}", where=str(program.module / "go.mod"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        copy = Path(scratch) / source.name
        # The module cache is read-only; what is kept here is not.
        if source.is_dir():
            shutil.copytree(source, copy, copy_function=shutil.copyfile)
            copy.chmod(0o755)
        else:
            shutil.copyfile(source, copy)
        copy.rename(target)
    return target


async def _folder(program: GoProgram, module: str) -> Path:
    version = await _go(program, ["go", "list", "-m", "-f={{.Path}}@{{.Version}}", module])
    downloaded = await _go(program, ["go", "mod", "download", "-json", version.strip()])
    return Path(json.loads(downloaded)["Dir"])


async def _go(program: GoProgram, command: list[str]) -> str:
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off"}
    done = await anyio.run_process(command, cwd=program.module, env=environment, check=False, stderr=subprocess.PIPE)
    if done.returncode:
        raise ClusterError(
            f"a Go module could not be had: {done.stderr.decode(errors='replace').strip()}",
            where=str(program.module / "go.mod"),
            next_command=f"cd {program.module} && {' '.join(command)}",
        )
    return done.stdout.decode()
