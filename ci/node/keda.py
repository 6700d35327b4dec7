"""KEDA's ScaledObject as a kind alone: KServe and servepath make such objects, and nothing on the node acts on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import yaml

from ci.node import crds, module_files
from ci.node.kserve import MANAGER

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.control_plane import ControlPlane

MODULE = "github.com/kedacore/keda/v2"
_CRD = "config/crd/bases/keda.sh_scaledobjects.yaml"


async def prepare(cache: Path) -> Path:
    """Keep the definition, of the version that KServe is built with.

    Raises:
        ClusterError: a download failed.
    """
    return await module_files.keep(MANAGER, MODULE, _CRD, cache)


async def apply(plane: ControlPlane, definition: Path) -> None:
    """Apply the definition and await that it is served.

    Raises:
        ClusterError: the API server refused it.
    """
    await crds.apply(plane.kubectl, [yaml.load(await anyio.Path(definition).read_text(), Loader=yaml.CSafeLoader)])
