"""The endpoint picker of the Gateway API Inference Extension, and the kinds that it reads.

It is built from its Go module, where its image would otherwise be pulled. Nothing of the main job needs it, so it is
built where it is asked for: `python -m ci.node.endpoint_picker`, before the tests that run it (`tests/gateway`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import typer
import yaml

from ci.node import images, module_files, programs
from ci.node.layout import from_environment
from ci.node.programs import HERE, GoProgram
from servepath.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "sigs.k8s.io/gateway-api-inference-extension"
PICKER = GoProgram(name="endpoint-picker", module=HERE / "endpoint-picker", package="./cmd/epp", dependency=MODULE)


async def prepare(cache: Path) -> Path:
    """Build the picker and give its file; the second time it is found.

    Raises:
        ClusterError: a download or the build failed.
    """
    return await programs.build(PICKER, cache) / PICKER.name


async def definitions(cache: Path) -> list[dict[str, Any]]:
    """Give the inference extension's CRDs, kept in the cache.

    Raises:
        ClusterError: a download failed.
    """
    return _read(await module_files.keep(PICKER, MODULE, "config/crd/bases", cache))


def _read(folder: Path) -> list[dict[str, Any]]:
    return [yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted(folder.glob("*.yaml"))]


async def push_image(program: Path, registry: str) -> str:
    """Push the picker's image and give its reference by digest.

    Raises:
        RegistryError: the registry refused something.
    """
    image = images.build({"epp": await anyio.Path(program).read_bytes()}, entrypoint=("/epp",))
    return await images.push(image, registry, "servepath/endpoint-picker")


def main() -> None:
    """Build the picker and keep its CRDs, or find them, and print where the picker is."""

    async def work() -> Path:
        cache = from_environment().cache
        await definitions(cache)
        return await prepare(cache)

    typer.echo(run(work))


if __name__ == "__main__":
    typer.run(main)
