"""Write an image to a target: base layers first, then the new layers in parallel, the config, and the manifest last.

Whoever sees the manifest can therefore pull every blob. A run that was killed leaves whole blobs, which the next one
finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from servepath.modelcar.content import BytesContent, digest_of
from servepath.modelcar.image import config_descriptor, make_config, make_manifest
from servepath.modelcar.layers import LAYER_MEDIA_TYPE
from servepath.modelcar.model import Progress
from servepath.modelcar.parallel import run_all
from servepath.modelcar.store import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servepath.modelcar.content import Content
    from servepath.modelcar.image import BaseImage, ImageMetadata
    from servepath.modelcar.layers import LayerPlan
    from servepath.modelcar.store import Document, ImageTarget

CHEAP_BYTES = 8 << 20
"""Up to this size a layer is always hashed before it is sent: that costs milliseconds."""


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """What was written; `members` are the files of each layer, empty for the base's."""

    document: Document
    config: Descriptor
    layers: tuple[Descriptor, ...]
    members: tuple[tuple[str, ...], ...]
    sent_bytes: int


def ignore_progress(progress: Progress) -> None:
    """Do nothing with a progress report."""


async def write_image(  # noqa: PLR0913 - the last three have defaults that work
    target: ImageTarget,
    base: BaseImage,
    plans: Sequence[LayerPlan],
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
    base_sent = await run_all(
        [partial(_copy_base_layer, target, base, layer, progress) for layer in base.layers], limit
    )
    # A base that was there tells that an earlier push began here: hash, look, and send what is missing.
    # Otherwise the blobs are new, and hashing while sending saves a reading of the weights.
    write = write_missing if not any(base_sent) else _write_new
    written = await run_all([partial(write, target, plan, progress) for plan in plans], limit)
    layers = tuple(descriptor for descriptor, _ in written)
    texts = [_describe(plan) for plan in plans]
    config = make_config(base, [(layer.digest, text) for layer, text in zip(layers, texts, strict=True)], metadata)
    descriptor = config_descriptor(config)
    config_sent = await copy_blob(target, BytesContent(config), descriptor, "config", progress)
    document = make_manifest(descriptor, (*base.layers, *layers), metadata.annotations)
    await target.write_manifest(document, tag)
    return WrittenImage(
        document,
        descriptor,
        (*base.layers, *layers),
        (*(() for _ in base.layers), *(plan.names for plan in plans)),
        sum(base_sent) + sum(sent for _, sent in written) + config_sent,
    )


async def copy_blob(
    target: ImageTarget, content: Content, descriptor: Descriptor, name: str, progress: Callable[[Progress], None]
) -> int:
    """Write a blob of known digest if it is missing; return the bytes sent."""
    size_bytes = descriptor.size_bytes
    if await target.has_blob(descriptor):
        progress(Progress(name, size_bytes, size_bytes))
        return 0
    await target.write_blob(content, descriptor.digest, lambda sent: progress(Progress(name, sent, size_bytes)))
    return size_bytes


async def write_missing(
    target: ImageTarget, plan: LayerPlan, progress: Callable[[Progress], None]
) -> tuple[Descriptor, int]:
    """Hash a layer first and send it only if it is missing; return its descriptor and the bytes sent."""
    descriptor = Descriptor(LAYER_MEDIA_TYPE, await digest_of(plan), plan.size_bytes)
    return descriptor, await copy_blob(target, plan, descriptor, _describe(plan), progress)


async def _write_new(
    target: ImageTarget, plan: LayerPlan, progress: Callable[[Progress], None]
) -> tuple[Descriptor, int]:
    """Hash a layer while it is sent."""
    size_bytes, name = plan.size_bytes, _describe(plan)
    if size_bytes <= CHEAP_BYTES:
        return await write_missing(target, plan, progress)
    digest = await target.write_blob(plan, "", lambda sent: progress(Progress(name, sent, size_bytes)))
    return Descriptor(LAYER_MEDIA_TYPE, digest, size_bytes), size_bytes


async def _copy_base_layer(
    target: ImageTarget, base: BaseImage, layer: Descriptor, progress: Callable[[Progress], None]
) -> int:
    if base.source is None:
        raise ValueError("a base image with layers has a source")
    return await copy_blob(target, base.source.blob(layer), layer, "base", progress)


def _describe(plan: LayerPlan) -> str:
    return plan.names[0] if len(plan.names) == 1 else f"{len(plan.names)} files"
