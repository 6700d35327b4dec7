"""Write a model's layers, each in the way that costs least.

A layer whose digest is known from an earlier push is looked for without reading it. One that is not is hashed while it
is sent where everything is new, and hashed before that where it may be there already: then it is sent by the kernel.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import zstandard
from anyio import to_thread
from msgspec import Struct

from servepath.errors import InputError, RegistryError
from servepath.modelcar.image.compress import (
    ZSTD_LEVEL,
    ZSTD_MEDIA_TYPE,
    CompressedLayer,
    Compressing,
    MeasuredLayer,
)
from servepath.modelcar.image.layers import LAYER_MEDIA_TYPE, LayerPlan
from servepath.modelcar.model import Progress
from servepath.modelcar.push.body import digest_of_pieces
from servepath.modelcar.push.fingerprint import fingerprint_of
from servepath.modelcar.push.place import ignore_progress, place_blob
from servepath.modelcar.push.push_cache import NO_CACHE, KnownLayer, PushCache
from servepath.modelcar.store import Descriptor
from servepath.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servepath.modelcar.content import Content
    from servepath.modelcar.push.fingerprint import Fingerprint
    from servepath.modelcar.store import ImageTarget

CHEAP_BYTES = 8 << 20
"""Up to this size a layer is always hashed before it is sent: that costs milliseconds."""


class WrittenLayer(Struct, frozen=True):
    """A layer that is in the target: its descriptor, the digest of its tar, its files, and the bytes sent for it."""

    descriptor: Descriptor
    diff_id: str
    members: tuple[str, ...]
    sent_bytes: int


class LayerWriting(Struct, frozen=True):
    """How layers are written.

    Attributes:
        is_new: the target had nothing of this image's base. Then the layers are new too, and hashing while sending
            saves a reading of the weights; otherwise they are hashed, looked for, and sent if they are missing.
        cache: what earlier pushes learnt.
        limit: blobs written at the same time.
        progress: called as bytes are written.
    """

    is_new: bool = False
    cache: PushCache = NO_CACHE
    limit: int = 3
    progress: Callable[[Progress], None] = ignore_progress


async def write_layers(
    target: ImageTarget, plans: Sequence[LayerPlan | CompressedLayer], writing: LayerWriting
) -> tuple[WrittenLayer, ...]:
    """Write the planned layers in parallel.

    Args:
        target: a repository or a layout.
        plans: the layers, lowest first.
        writing: how.

    Raises:
        InputError: a file cannot be read, or changed while it was read.
        RegistryError: a registry refused or failed.
    """
    return tuple(await run_all([partial(_write_layer, target, plan, writing) for plan in plans], writing.limit))


def describe_names(names: Sequence[str]) -> str:
    """Say what a layer holds: its one file's name, or how many files."""
    return names[0] if len(names) == 1 else f"{len(names)} files"


async def _write_layer(target: ImageTarget, plan: LayerPlan | CompressedLayer, writing: LayerWriting) -> WrittenLayer:
    """Write one layer and remember what it came to."""
    before = await to_thread.run_sync(_fingerprint, plan)
    known = writing.cache.layer(before)
    try:
        if known is None and writing.is_new and _tar_of(plan).size_bytes > CHEAP_BYTES:
            written = await _write_new(target, plan, writing.progress)
        else:
            written = await _write_known(
                target, plan, known or await _measure(plan, writing.progress), writing.progress
            )
    except RegistryError as error:
        if await to_thread.run_sync(_fingerprint, plan) != before:  # the registry only saw a wrong digest
            raise _changed(plan) from error
        raise
    if known is None:
        after = await to_thread.run_sync(_fingerprint, plan)
        if after.key != before.key:
            raise _changed(plan)
        writing.cache.remember_layer(before, KnownLayer(written.descriptor, written.diff_id))
    return written


async def _write_new(
    target: ImageTarget, plan: LayerPlan | CompressedLayer, progress: Callable[[Progress], None]
) -> WrittenLayer:
    """Hash a layer, and compress it, while it is sent."""
    size_bytes, name = _tar_of(plan).size_bytes, describe_names(plan.names)
    if isinstance(plan, LayerPlan):
        blob = await target.write_blob(plan, "", lambda sent: progress(Progress(name, sent, size_bytes)))
        descriptor = Descriptor(LAYER_MEDIA_TYPE, blob.digest, size_bytes)
        return WrittenLayer(descriptor, blob.digest, plan.names, blob.sent_bytes)
    content = Compressing(plan)
    blob = await target.write_blob(content, "", lambda _: progress(Progress(name, content.read_bytes, size_bytes)))
    progress(Progress(name, size_bytes, size_bytes))
    descriptor = Descriptor(ZSTD_MEDIA_TYPE, blob.digest, blob.size_bytes)
    return WrittenLayer(descriptor, content.diff_id, plan.names, blob.sent_bytes)


async def _write_known(
    target: ImageTarget,
    plan: LayerPlan | CompressedLayer,
    known: KnownLayer,
    progress: Callable[[Progress], None],
) -> WrittenLayer:
    """Look for a layer and send it if it is missing."""
    content: Content = (
        plan if not isinstance(plan, CompressedLayer) else MeasuredLayer(plan, known.descriptor, known.diff_id)
    )
    placed = await place_blob(target, content, known.descriptor, describe_names(plan.names), progress)
    return WrittenLayer(known.descriptor, known.diff_id, plan.names, placed.sent_bytes)


async def _measure(plan: LayerPlan | CompressedLayer, progress: Callable[[Progress], None]) -> KnownLayer:
    if isinstance(plan, CompressedLayer):
        measured = await plan.measure()
        return KnownLayer(measured.descriptor, measured.diff_id)
    size_bytes, name = plan.size_bytes, describe_names(plan.names)
    digest = await digest_of_pieces(plan, lambda done: progress(Progress(name, done, size_bytes, "hashing")))
    return KnownLayer(Descriptor(LAYER_MEDIA_TYPE, digest, plan.size_bytes), digest)


def _tar_of(plan: LayerPlan | CompressedLayer) -> LayerPlan:
    return plan.plan if isinstance(plan, CompressedLayer) else plan


def _fingerprint(plan: LayerPlan | CompressedLayer) -> Fingerprint:
    if isinstance(plan, CompressedLayer):
        return fingerprint_of(plan.plan, f"zstd {ZSTD_LEVEL} {zstandard.__version__} {zstandard.ZSTD_VERSION}")
    return fingerprint_of(plan)


def _changed(plan: LayerPlan | CompressedLayer) -> InputError:
    return InputError(
        "a file changed while it was read",
        where=describe_names(plan.names),
        expected="files that stay as they are during the push",
        next_command="run again when nothing writes to the model directory",
    )
