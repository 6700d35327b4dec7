"""Build a modelcar and write it, in one pass over the weights: to a registry or to an OCI layout."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servepath.errors import InputError
from servepath.modelcar.image import BaseImage, ImageMetadata, created_text, read_base
from servepath.modelcar.layers import MAX_MODEL_LAYERS, OWN_LAYER_BYTES, plan_layers
from servepath.modelcar.layout import Layout
from servepath.modelcar.model import Layer, Modelcar
from servepath.modelcar.reference import parse_pinned
from servepath.modelcar.registry import RegistryOptions, open_registry
from servepath.modelcar.repository import Repository
from servepath.modelcar.write import ignore_progress, write_image

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from servepath.modelcar.layers import LayerPlan
    from servepath.modelcar.model import ModelSource, Progress
    from servepath.modelcar.write import WrittenImage

MODELS = "models"
"""Where KServe's modelcar containers look for the model, at the image's root."""
_IMAGE = "org.opencontainers.image"
_MODEL = "io.servepath.model"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How the image is made; two builds with the same options and files have the same digest.

    Attributes:
        platform: `os/architecture` of the base to take from an index.
        created_s: creation time in seconds since 1970, see `source_date_epoch`; 0 keeps the digest free of time.
        own_layer_bytes: files of at least this size get a layer of their own.
        max_layers: the most model layers.
    """

    platform: str = "linux/amd64"
    created_s: int = 0
    own_layer_bytes: int = OWN_LAYER_BYTES
    max_layers: int = MAX_MODEL_LAYERS


async def build_and_push(  # noqa: PLR0913 - the last four have defaults that work
    source: ModelSource,
    base: str,
    registry: str,
    repository: str,
    *,
    tag: str = "",
    build: BuildOptions = BuildOptions(),
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
    async with open_base(base, settings, build.platform) as image, open_registry(registry, settings) as client:
        await client.ping()
        target = Repository(client, repository)
        plans, metadata = plan_modelcar(source, image, build)
        written = await write_image(target, image, plans, metadata, tag=tag, limit=settings.uploads, progress=progress)
        return _modelcar(source, written, metadata, f"{target}@{written.document.digest}")


async def build_layout(  # noqa: PLR0913 - the last four have defaults that work
    source: ModelSource,
    base: str,
    directory: Path,
    *,
    tag: str = "",
    build: BuildOptions = BuildOptions(),
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
    async with open_base(base, settings, build.platform) as image:
        plans, metadata = plan_modelcar(source, image, build)
        target = Layout(directory)
        written = await write_image(target, image, plans, metadata, tag=tag, limit=settings.uploads, progress=progress)
        return _modelcar(source, written, metadata, "")


def plan_modelcar(
    source: ModelSource, base: BaseImage, build: BuildOptions
) -> tuple[tuple[LayerPlan, ...], ImageMetadata]:
    """Plan a modelcar's layers and what it says of itself; reads file sizes only."""
    files = {f"{MODELS}/{name}": source.directory / name for name in source.files}
    plans = plan_layers(
        files,
        mtime_s=build.created_s,
        own_layer_bytes=build.own_layer_bytes,
        max_layers=build.max_layers,
    )
    return plans, ImageMetadata(annotations_of(source, base, build.created_s), created_s=build.created_s)


def annotations_of(source: ModelSource, base: BaseImage, created_s: int) -> dict[str, str]:
    """Return what the image says of the model and its base; facts that are not known are left out."""
    facts = {
        f"{_IMAGE}.title": source.name,
        f"{_IMAGE}.description": f"{source.name} as a modelcar: /models holds the model",
        f"{_IMAGE}.created": created_text(created_s),
        f"{_IMAGE}.source": f"https://huggingface.co/{source.origin}" if source.origin else "",
        f"{_IMAGE}.revision": source.revision,
        f"{_IMAGE}.licenses": source.licence,
        f"{_IMAGE}.base.name": base.name,
        f"{_IMAGE}.base.digest": base.digest,
        f"{_MODEL}.name": source.name,
        f"{_MODEL}.format": _format_of(source),
        f"{_MODEL}.parameters": str(source.parameters or ""),
        f"{_MODEL}.dtype": source.dtype,
    }
    return {key: value for key, value in facts.items() if value}


@asynccontextmanager
async def open_base(base: str, options: RegistryOptions, platform: str) -> AsyncGenerator[BaseImage, None]:
    """Open a base image: `repository@sha256:…`, or `oci:DIRECTORY[@sha256:…]`; readable while the context is open.

    Raises:
        InputError: not an image, not of the platform, or named by tag.
        RegistryError: its registry refused or failed.
    """
    if base.startswith("oci:"):
        directory, _, digest = base.removeprefix("oci:").partition("@")
        layout = Layout(Path(directory))
        image = await read_base(layout, digest or layout.only_digest(), platform=platform)
        yield image
        return
    reference = parse_pinned(base)
    async with open_registry(reference.registry, options) as client:
        repository = Repository(client, reference.repository)
        image = await read_base(repository, reference.digest, platform=platform)
        yield image


def source_date_epoch() -> int:
    """Return the time that SOURCE_DATE_EPOCH gives (https://reproducible-builds.org/specs/source-date-epoch), else 0.

    Raises:
        InputError: it is set and no number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not text.isdecimal():
        raise InputError(f"not a number of seconds: {text!r}", where="SOURCE_DATE_EPOCH", expected="seconds since 1970")
    return int(text)


def _format_of(source: ModelSource) -> str:
    suffixes = {name.rpartition(".")[2] for name in source.files}
    return next((kind for kind in ("safetensors", "gguf") if kind in suffixes), "pickle")


def _modelcar(source: ModelSource, written: WrittenImage, metadata: ImageMetadata, reference: str) -> Modelcar:
    layers = tuple(
        Layer(layer.digest, layer.size_bytes, layer.media_type, members)
        for layer, members in zip(written.layers, written.members, strict=True)
    )
    return Modelcar(
        digest=written.document.digest,
        reference=reference,
        size_bytes=sum(layer.size_bytes for layer in layers) + written.config.size_bytes,
        layers=layers,
        source=source,
        sent_bytes=written.sent_bytes,
        annotations=dict(metadata.annotations),
    )
