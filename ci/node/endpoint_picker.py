"""The endpoint picker of the Gateway API Inference Extension, and the kinds that it reads.

It is built from its Go module, where its image would otherwise be pulled. No gateway is asked for here: the picker is
spoken to by whichever Gateway has an InferencePool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from ci.node import images, module_files, programs
from ci.node.programs import HERE, GoProgram

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "sigs.k8s.io/gateway-api-inference-extension"
PICKER = GoProgram(name="endpoint-picker", module=HERE / "endpoint-picker", package="./cmd/epp", dependency=MODULE)


@dataclass(frozen=True, slots=True)
class PickerFiles:
    """What `prepare` leaves.

    Attributes:
        program: the picker.
        crds: the folder of the inference extension's CRDs.
    """

    program: Path
    crds: Path


async def prepare(cache: Path) -> PickerFiles:
    """Build the picker and keep its CRDs; the second time both are found.

    Raises:
        ClusterError: a download or the build failed.
    """
    folder = await programs.build(PICKER, cache)
    return PickerFiles(folder / PICKER.name, await module_files.keep(PICKER, MODULE, "config/crd/bases", cache))


def definitions(files: PickerFiles) -> list[dict[str, Any]]:
    """Give the inference extension's CRDs."""
    return [yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted(files.crds.glob("*.yaml"))]


async def push_image(files: PickerFiles, registry: str) -> str:
    """Push the picker's image and give its reference by digest.

    Raises:
        RegistryError: the registry refused something.
    """
    image = images.build({"epp": files.program.read_bytes()}, entrypoint=("/epp",))
    return await images.push(image, registry, "servepath/endpoint-picker")
