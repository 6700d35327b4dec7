"""How much a registry holds of the images that nodes will pull."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from servepath.errors import InputError, RegistryError
from servepath.modelcar.image.oci import read_image
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import Sequence


async def image_bytes(references: Sequence[str], options: RegistryOptions | None = None) -> int:
    """Give the bytes of the layers of these images as their registries hold them, for a node of linux/amd64.

    Args:
        references: `host/repository@sha256:…`.
        options: how registries are talked to.

    Returns:
        Their sum, each layer counted once; 0 where one of them cannot be read, since less than all tells nothing.
    """
    settings = options or RegistryOptions()
    try:
        found = await run_all([partial(_layers, reference, settings) for reference in references], 2)
    except (RegistryError, InputError):
        return 0
    return sum({digest: size for layers in found for digest, size in layers.items()}.values())


async def _layers(reference: str, options: RegistryOptions) -> dict[str, int]:
    pinned = parse_pinned(reference)
    async with open_registry(pinned.registry, options) as client:
        image = await read_image(Repository(client, pinned.repository), pinned.digest)
    return {layer.digest: layer.size_bytes for layer in image.layers}
