"""The Gateway API's CRDs, standard channel, of the version that Envoy Gateway is built with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from ci.node import crds, module_files
from ci.node.programs import HERE, GoProgram

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.control_plane import ControlPlane

MODULE = "sigs.k8s.io/gateway-api"

# Envoy Gateway's go.mod names the version.
_PINS = GoProgram(name="gateway-api", module=HERE / "envoy-gateway", package=MODULE)


async def prepare(cache: Path) -> Path:
    """Keep the CRDs in the cache; returns their folder.

    Raises:
        ClusterError: a download failed.
    """
    return await module_files.keep(_PINS, MODULE, "config/crd/standard", cache)


async def apply(plane: ControlPlane, folder: Path) -> None:
    """Apply the CRDs and await that they are served.

    Raises:
        ClusterError: the API server refused one.
    """
    await crds.apply(plane.kubectl, read(folder))


def read(folder: Path) -> list[dict[str, Any]]:
    """Give the CRDs of a folder; it holds an admission policy too, which guards upgrades and is not needed here."""
    files = sorted(folder.glob("*.yaml"))
    objects = [obj for path in files for obj in yaml.load_all(path.read_text(), yaml.CSafeLoader) if obj]
    return [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"]
