"""The tools that are measured, each as one command line, and how the peers are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node import oci_tools, programs
from ci.node.said import last_line
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
OLOT, OCI_MODELCAR = "olot==1.2.1", "oci-modelcar==1.3.0"


@dataclass(frozen=True, slots=True)
class Push:
    """One push to be made.

    Attributes:
        model: the model's directory.
        registry: `host:port`.
        repository: the repository there.
        base: OCI layout of the base image.
        scratch: an empty directory, on the disk that the model is on.
    """

    model: Path
    registry: str
    repository: str
    base: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that pushes a model.

    Attributes:
        name: as the table shows it.
        command: its command line for one push.
    """

    name: str
    command: Callable[[Push], list[str]]


@dataclass(frozen=True, slots=True)
class Installed:
    """Where the peers are.

    Attributes:
        oras: the program.
        olot: the program.
        oci_modelcar_python: the Python of its environment.
    """

    oras: Path
    olot: Path
    oci_modelcar_python: Path


async def install(cache: Path) -> Installed:
    """Install every peer once, each Python tool into an environment of its own.

    Args:
        cache: the folder to install into.

    Raises:
        ClusterError: a download or build failed, with what its tool said.
    """
    oras = await programs.build(oci_tools.ORAS, cache)
    olot = await _environment(cache, OLOT)
    oci_modelcar = await _environment(cache, OCI_MODELCAR)
    return Installed(oras / "oras", olot / "bin/olot", oci_modelcar / "bin/python")


def tools(installed: Installed) -> tuple[Tool, ...]:
    """The tools, ours first."""

    def servepath(push: Push) -> list[str]:
        target = f"{push.registry}/{push.repository}"
        program = str(Path(sys.executable).with_name("servepath"))
        return [program, "modelcar", f"--source={push.model}", f"--push={target}", f"--base-image=oci:{push.base}"]

    def oras(push: Push) -> list[str]:
        files = sorted(str(path) for path in push.model.iterdir())
        target = f"{push.registry}/{push.repository}:v1"
        return [str(installed.oras), "push", "--plain-http", "--disable-path-validation", target, *files]

    def oci_modelcar(push: Push) -> list[str]:
        driver = str(HERE / "peer_oci_modelcar.py")
        where = (str(push.model), push.registry, push.repository, "v1", str(push.scratch))
        return [str(installed.oci_modelcar_python), driver, *where]

    def olot(push: Push) -> list[str]:
        layout, files = push.scratch / "layout", [str(path) for path in sorted(push.model.iterdir())]
        script = (
            'layout=$1 base=$2 olot=$3 target=$4; shift 4; cp -r "$base" "$layout"; "$olot" "$layout" "$@"; '
            'skopeo copy --quiet --preserve-digests --dest-tls-verify=false "oci:$layout" "docker://$target"'
        )
        target = f"{push.registry}/{push.repository}:v1"
        return ["sh", "-euc", script, "sh", str(layout), str(push.base), str(installed.olot), target, *files]

    return (
        Tool("servepath", servepath),
        Tool("oras (raw files)", oras),
        Tool("oci-modelcar", oci_modelcar),
        Tool("olot + skopeo", olot),
    )


async def _environment(cache: Path, requirement: str) -> Path:
    """An environment that holds one requirement; it is complete or not there."""
    folder = cache / "peers" / requirement.replace("==", "-")
    if folder.is_dir():
        return folder
    shutil.rmtree(partial := folder.with_suffix(".partial"), ignore_errors=True)
    await _uv("venv", "--relocatable", str(partial))
    await _uv("pip", "install", f"--python={partial}/bin/python", requirement)
    partial.rename(folder)
    return folder


async def _uv(*arguments: str) -> None:
    command = ["uv", "--quiet", *arguments]
    try:
        done = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise ClusterError("uv is not on the PATH", where="uv", next_command="make bench-modelcar") from None
    if done.returncode:
        said = last_line(done.stderr.decode(errors="replace"))
        raise ClusterError(f"uv failed: {said}", where=" ".join(command), next_command=" ".join(command))
