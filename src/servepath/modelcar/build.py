"""Build a modelcar and write it, in one pass over the weights: to a registry or to an OCI layout."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from anyio import to_thread
from msgspec import Struct

from servepath.modelcar.attach.attachments import attach_all
from servepath.modelcar.attach.facts import ModelcarFacts
from servepath.modelcar.image.oci import BaseImage, make_index, manifest_descriptor, read_base
from servepath.modelcar.layout import Layout, parse_layout
from servepath.modelcar.model import Layer, Modelcar
from servepath.modelcar.plan import DEFAULT_BUILD, BuildOptions, ModelcarPlan, plan_modelcar
from servepath.modelcar.push.place import ignore_progress
from servepath.modelcar.push.push_cache import NO_CACHE, PushCache
from servepath.modelcar.push.write import WrittenImage, finish_image, write_base
from servepath.modelcar.push.write_layers import LayerWriting, WrittenLayer, write_layers
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.remembered import RememberedSource
from servepath.modelcar.registry.repository import Repository

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from servepath.modelcar.model import ModelSource, Progress
    from servepath.modelcar.store import Document, ImageTarget


class WrittenModelcar(Struct, frozen=True):
    """What was written: the manifest, or the index over several images; the images; the model's layers."""

    document: Document
    images: tuple[WrittenImage, ...]
    layers: tuple[WrittenLayer, ...]
    sent_bytes: int


async def build_and_push(  # noqa: PLR0913 - the last four have defaults that work
    source: ModelSource,
    base: str,
    registry: str,
    repository: str,
    *,
    tag: str = "",
    build: BuildOptions = DEFAULT_BUILD,
    options: RegistryOptions | None = None,
    progress: Callable[[Progress], None] = ignore_progress,
) -> Modelcar:
    """Build a modelcar and push it, streaming: nothing is written to disk, blobs that are there are not sent.

    Args:
        source: a validated model.
        base: the base image: `repository@sha256:…`, or `oci:DIRECTORY[@sha256:…]`.
        registry: `host[:port]` to push to.
        repository: the repository there, such as `servepath/qwen2.5-0.5b`.
        tag: a tag to put on it too; the result's reference is by digest either way.
        build: how the image is made.
        options: how registries are talked to.
        progress: called as bytes are sent.

    Raises:
        InputError: the base or a file of the model is not usable.
        RegistryError: a registry refused or failed.
    """
    settings = options or RegistryOptions()
    async with open_bases(base, settings, build.platforms) as bases, open_registry(registry, settings) as client:
        target = Repository(client, repository)
        if not _was_pushed_to(target, bases):
            await client.ping()
        plan = await to_thread.run_sync(plan_modelcar, source, bases, build)
        written = await write_modelcar(
            target, plan, tag=tag, cache=settings.cache, limit=settings.uploads, progress=progress
        )
        modelcar = _modelcar(source, plan, written, f"{target}@{written.document.digest}")
        return await _attach(target, modelcar, plan, build, written)


async def build_layout(  # noqa: PLR0913 - the last four have defaults that work
    source: ModelSource,
    base: str,
    directory: Path,
    *,
    tag: str = "",
    build: BuildOptions = DEFAULT_BUILD,
    options: RegistryOptions | None = None,
    progress: Callable[[Progress], None] = ignore_progress,
) -> Modelcar:
    """Build a modelcar into an OCI layout; the digest is that of `build_and_push`.

    Args:
        source: a validated model.
        base: the base image: `repository@sha256:…`, or `oci:DIRECTORY[@sha256:…]`.
        directory: the layout; made if missing, added to if it is one.
        tag: the image's name in the layout.
        build: how the image is made.
        options: how the base's registry is talked to.
        progress: called as bytes are written.

    Raises:
        InputError: the base, a file of the model or the directory is not usable.
        RegistryError: the base's registry refused or failed.
    """
    settings = options or RegistryOptions()
    async with open_bases(base, settings, build.platforms) as bases:
        plan = await to_thread.run_sync(plan_modelcar, source, bases, build)
        target = Layout(directory)
        written = await write_modelcar(
            target, plan, tag=tag, cache=settings.cache, limit=settings.uploads, progress=progress
        )
        return await _attach(target, _modelcar(source, plan, written, ""), plan, build, written)


async def write_modelcar(  # noqa: PLR0913 - the last four have defaults that work
    target: ImageTarget,
    plan: ModelcarPlan,
    *,
    tag: str = "",
    cache: PushCache = NO_CACHE,
    limit: int = 3,
    progress: Callable[[Progress], None] = ignore_progress,
) -> WrittenModelcar:
    """Write a modelcar: bases, the model's layers once, an image per base, and an index over several.

    Args:
        target: a repository or a layout.
        plan: what to write.
        tag: a tag to put on it.
        cache: what earlier pushes learnt.
        limit: blobs written at the same time.
        progress: called as bytes are written.

    Raises:
        InputError: a file or a base cannot be read.
        RegistryError: a registry refused or failed.
    """
    bases = [await write_base(target, base, limit=limit, progress=progress) for base, _ in plan.images]
    is_new = not any(base.was_there for base in bases)
    layers = await write_layers(target, plan.layers, LayerWriting(is_new, cache, limit, progress))
    single_tag = tag if len(plan.images) == 1 else ""
    images = [
        await finish_image(target, base, layers, metadata, tag=single_tag, progress=progress)
        for base, metadata in plan.images
    ]
    document = images[0].document
    if len(images) > 1:
        pairs = [(image.document, base) for image, (base, _) in zip(images, plan.images, strict=True)]
        document = make_index(pairs, plan.annotations)
        await target.write_manifest(document, tag)
    sent_bytes = sum(base.sent_bytes for base in bases) + sum(layer.sent_bytes for layer in layers)
    sent_bytes += sum(image.sent_bytes for image in images)
    return WrittenModelcar(document, tuple(images), layers, sent_bytes)


@asynccontextmanager
async def open_bases(
    base: str, options: RegistryOptions, platforms: Sequence[str]
) -> AsyncGenerator[tuple[BaseImage, ...], None]:
    """Open a base image for each platform; readable while the context is open.

    Args:
        base: `repository@sha256:…`, or `oci:DIRECTORY[@sha256:…]`.
        options: how its registry is talked to.
        platforms: each `os/architecture`; given back in order of name.

    Raises:
        InputError: not an image, not of a platform, or named by tag.
        RegistryError: its registry refused or failed.
    """
    wanted = sorted(set(platforms))
    if base.startswith("oci:"):
        layout, pinned = parse_layout(base)
        yield tuple([await read_base(layout, pinned, platform=platform) for platform in wanted])
        return
    reference = parse_pinned(base)
    async with open_registry(reference.registry, options) as client:
        repository = RememberedSource(Repository(client, reference.repository), options.cache)
        yield tuple([await read_base(repository, reference.digest, platform=platform) for platform in wanted])


async def _attach(
    target: Repository | Layout, modelcar: Modelcar, plan: ModelcarPlan, build: BuildOptions, written: WrittenModelcar
) -> Modelcar:
    """Attach what the options ask for, and say so in the result."""
    facts = ModelcarFacts(modelcar.source, plan, build, written.layers, manifest_descriptor(written.document))
    attached = await attach_all(target, facts)
    return replace(modelcar, sent_bytes=written.sent_bytes + attached.sent_bytes, referrers=attached.digests)


def _was_pushed_to(target: Repository, bases: Sequence[BaseImage]) -> bool:
    """Tell whether an earlier push went there: then it is a registry, and every request counts."""
    holders = partial(target.registry.options.cache.holders, target.registry.host)
    return any(target.name in holders(layer.digest) for base in bases for layer in base.layers)


def _modelcar(source: ModelSource, plan: ModelcarPlan, written: WrittenModelcar, reference: str) -> Modelcar:
    bases = dict.fromkeys(layer for base, _ in plan.images for layer in base.layers)  # platforms may share one
    layers = (
        *(Layer(layer.digest, layer.size_bytes, layer.media_type) for layer in bases),
        *(
            Layer(layer.descriptor.digest, layer.descriptor.size_bytes, layer.descriptor.media_type, layer.members)
            for layer in written.layers
        ),
    )
    configs = sum(image.config.size_bytes for image in written.images)
    return Modelcar(
        digest=written.document.digest,
        reference=reference,
        size_bytes=sum(layer.size_bytes for layer in layers) + configs,
        layers=layers,
        source=source,
        sent_bytes=written.sent_bytes,
        annotations=plan.annotations,
    )
