"""Write an image to a target: base layers first, then the new layers in parallel, the config, and the manifest last.

Whoever sees the manifest can therefore pull every blob. A run that was killed leaves whole blobs, which the next one
finds.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from servepath.modelcar.content import BytesContent
from servepath.modelcar.image.oci import config_descriptor, make_config, make_manifest
from servepath.modelcar.push.place import Placed, ignore_progress, place_blob
from servepath.modelcar.push.write_layers import LayerWriting, WrittenLayer, describe_names, write_layers
from servepath.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servepath.modelcar.image.compress import CompressedLayer
    from servepath.modelcar.image.layers import LayerPlan
    from servepath.modelcar.image.oci import BaseImage, ImageMetadata
    from servepath.modelcar.model import Progress
    from servepath.modelcar.store import Descriptor, Document, ImageTarget


class WrittenImage(Struct, frozen=True):
    """What was written; `members` are the files of each layer, empty for the base's."""

    document: Document
    config: Descriptor
    layers: tuple[Descriptor, ...]
    members: tuple[tuple[str, ...], ...]
    sent_bytes: int


async def write_image(  # noqa: PLR0913 - the last three have defaults that work
    target: ImageTarget,
    base: BaseImage,
    plans: Sequence[LayerPlan | CompressedLayer],
    metadata: ImageMetadata,
    *,
    tag: str = "",
    limit: int = 3,
    progress: Callable[[Progress], None] = ignore_progress,
) -> WrittenImage:
    """Write base + planned layers as one image.

    Args:
        target: a repository or a layout.
        base: the image underneath; `BaseImage()` for none.
        plans: the layers to put on it, lowest first.
        metadata: what the image says of itself.
        tag: a tag to put on it.
        limit: blobs written at the same time.
        progress: called as bytes are written.

    Raises:
        InputError: a file or the base cannot be read.
        RegistryError: a registry refused or failed.
    """
    written_base = await write_base(target, base, limit=limit, progress=progress)
    layers = await write_layers(
        target, plans, LayerWriting(is_new=not written_base.was_there, limit=limit, progress=progress)
    )
    image = await finish_image(target, base, layers, metadata, tag=tag, progress=progress)
    sent_bytes = written_base.sent_bytes + sum(layer.sent_bytes for layer in layers)
    return replace(image, sent_bytes=image.sent_bytes + sent_bytes)


async def write_base(
    target: ImageTarget, base: BaseImage, *, limit: int = 3, progress: Callable[[Progress], None] = ignore_progress
) -> Placed:
    """Write the base's layers where they are missing."""
    jobs = [partial(_copy_base_layer, target, base, layer, progress) for layer in base.layers]
    placed = await run_all(jobs, limit)
    return Placed(sum(blob.sent_bytes for blob in placed), any(blob.was_there for blob in placed))


async def finish_image(  # noqa: PLR0913 - the last two have defaults that work
    target: ImageTarget,
    base: BaseImage,
    layers: Sequence[WrittenLayer],
    metadata: ImageMetadata,
    *,
    tag: str = "",
    progress: Callable[[Progress], None] = ignore_progress,
) -> WrittenImage:
    """Write config and manifest over layers that are there; `sent_bytes` counts the config alone."""
    texts = [(layer.diff_id, describe_names(layer.members)) for layer in layers]
    config = make_config(base, texts, metadata)
    descriptor = config_descriptor(config)
    placed = await place_blob(target, BytesContent(config), descriptor, "config", progress)
    descriptors = (*base.layers, *(layer.descriptor for layer in layers))
    document = make_manifest(descriptor, descriptors, metadata.annotations)
    await target.write_manifest(document, tag)
    members = (*(() for _ in base.layers), *(layer.members for layer in layers))
    return WrittenImage(document, descriptor, descriptors, members, placed.sent_bytes)


async def _copy_base_layer(
    target: ImageTarget, base: BaseImage, layer: Descriptor, progress: Callable[[Progress], None]
) -> Placed:
    if base.source is None:
        raise ValueError("a base image with layers has a source")
    return await place_blob(target, base.source.blob(layer), layer, "base", progress)
