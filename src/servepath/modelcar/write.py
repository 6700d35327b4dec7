"""Write an image to a target: base layers first, then the new layers in parallel, the config, and the manifest last.

Whoever sees the manifest can therefore pull every blob. A run that was killed leaves whole blobs, which the next one
finds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from servepath.modelcar.compress import CompressedLayer
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
class WrittenLayer:
    """A layer that is in the target: its descriptor, the digest of its tar, its files, and the bytes sent for it."""

    descriptor: Descriptor
    diff_id: str
    members: tuple[str, ...]
    sent_bytes: int


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
    base_sent = await write_base(target, base, limit=limit, progress=progress)
    layers = await write_layers(target, plans, is_new=base_sent > 0, limit=limit, progress=progress)
    image = await finish_image(target, base, layers, metadata, tag=tag, progress=progress)
    return replace(image, sent_bytes=image.sent_bytes + base_sent + sum(layer.sent_bytes for layer in layers))


async def write_base(
    target: ImageTarget, base: BaseImage, *, limit: int = 3, progress: Callable[[Progress], None] = ignore_progress
) -> int:
    """Write the base's layers where they are missing and return the bytes sent."""
    jobs = [partial(_copy_base_layer, target, base, layer, progress) for layer in base.layers]
    return sum(await run_all(jobs, limit))


async def write_layers(
    target: ImageTarget,
    plans: Sequence[LayerPlan | CompressedLayer],
    *,
    is_new: bool,
    limit: int = 3,
    progress: Callable[[Progress], None] = ignore_progress,
) -> tuple[WrittenLayer, ...]:
    """Write the planned layers in parallel.

    Args:
        target: a repository or a layout.
        plans: the layers, lowest first.
        is_new: the target had nothing of this image's base. Then the layers are new too, and hashing while sending
            saves a reading of the weights; otherwise they are hashed, looked for, and sent if they are missing.
        limit: blobs written at the same time.
        progress: called as bytes are written.
    """
    write = _write_new if is_new else write_missing
    return tuple(await run_all([partial(write, target, plan, progress) for plan in plans], limit))


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
    sent_bytes = await copy_blob(target, BytesContent(config), descriptor, "config", progress)
    descriptors = (*base.layers, *(layer.descriptor for layer in layers))
    document = make_manifest(descriptor, descriptors, metadata.annotations)
    await target.write_manifest(document, tag)
    members = (*(() for _ in base.layers), *(layer.members for layer in layers))
    return WrittenImage(document, descriptor, descriptors, members, sent_bytes)


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
    target: ImageTarget, plan: LayerPlan | CompressedLayer, progress: Callable[[Progress], None]
) -> WrittenLayer:
    """Hash a layer first and send it only if it is missing."""
    if isinstance(plan, CompressedLayer):
        measured = await plan.measure()
        content: Content = measured
        descriptor, diff_id = measured.descriptor, measured.diff_id
    else:
        content, diff_id = plan, await digest_of(plan)
        descriptor = Descriptor(LAYER_MEDIA_TYPE, diff_id, plan.size_bytes)
    sent_bytes = await copy_blob(target, content, descriptor, describe_names(plan.names), progress)
    return WrittenLayer(descriptor, diff_id, plan.names, sent_bytes)


async def _write_new(
    target: ImageTarget, plan: LayerPlan | CompressedLayer, progress: Callable[[Progress], None]
) -> WrittenLayer:
    """Hash a layer while it is sent."""
    if isinstance(plan, CompressedLayer) or plan.size_bytes <= CHEAP_BYTES:
        return await write_missing(target, plan, progress)
    size_bytes, name = plan.size_bytes, describe_names(plan.names)
    digest = await target.write_blob(plan, "", lambda sent: progress(Progress(name, sent, size_bytes)))
    return WrittenLayer(Descriptor(LAYER_MEDIA_TYPE, digest, size_bytes), digest, plan.names, size_bytes)


async def _copy_base_layer(
    target: ImageTarget, base: BaseImage, layer: Descriptor, progress: Callable[[Progress], None]
) -> int:
    if base.source is None:
        raise ValueError("a base image with layers has a source")
    return await copy_blob(target, base.source.blob(layer), layer, "base", progress)


def describe_names(names: Sequence[str]) -> str:
    """Say what a layer holds: its one file's name, or how many files."""
    return names[0] if len(names) == 1 else f"{len(names)} files"
