"""The stand-in engine as an image: an engine that starts in milliseconds, where a test is about what surrounds one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ci.node import images, programs

if TYPE_CHECKING:
    from ci.node.registry import Registry

PROGRAM = programs.GoProgram("standin-engine", Path(__file__).parent / "go")


async def build_standin_engine(cache: Path) -> images.Image:
    """Build the stand-in engine and give its image.

    Its flags besides vLLM's are `--standin-ttft-ms`, `--standin-itl-ms`, `--standin-error-percent` and
    `--standin-crash-after-ms`: put them into `Profile.engine_args`. Every answer has the header `X-Served-By`, the
    pod's name.

    Raises:
        ClusterError: Go is missing or the program does not compile.
    """
    folder = await programs.build(PROGRAM, cache)
    program = (folder / PROGRAM.name).read_bytes()
    return images.build({f"bin/{PROGRAM.name}": program}, entrypoint=(f"/bin/{PROGRAM.name}",))


async def push_standin_engine(cache: Path, registry: Registry) -> str:
    """Build the stand-in engine, push its image and give the reference by digest.

    Raises:
        ClusterError: Go is missing or the program does not compile.
        RegistryError: the registry refused something.
    """
    return await images.push(await build_standin_engine(cache), registry.address, "servepath/standin-engine")
