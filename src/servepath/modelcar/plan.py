"""What a modelcar will be, before a byte of the weights is read: its layers, its bases, what it says of itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from servepath.errors import InputError, UsageError
from servepath.modelcar.image.compress import CompressedLayer, Compression
from servepath.modelcar.image.layers import MAX_MODEL_LAYERS, OWN_LAYER_BYTES, LayerPlan, VirtualFile, plan_layers
from servepath.modelcar.image.oci import BaseImage, ImageMetadata, created_text
from servepath.modelcar.image.reshard import reshard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servepath.modelcar.model import ModelSource

MODELS = "models"
"""Where KServe's modelcar containers look for the model, at the image's root."""
_IMAGE = "org.opencontainers.image"
_MODEL = "io.servepath.model"
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+")
_LEAST_LAYERS = 2


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How the image is made; two builds with the same options and files have the same digest.

    Attributes:
        platforms: each `os/architecture`. One makes an image; several make an index of images that share the model's
            layers, and the digest is then the index's. Their order does not count.
        created_s: creation time in seconds since 1970, see `source_date_epoch`; 0 keeps the digest free of time.
        own_layer_bytes: files of at least this size get a layer of their own.
        max_layers: the most model layers, at least 2.
        reshard_bytes: cut safetensors weights anew into shards of at most this size; 0 leaves them as they are.
        compression: how the model's layers are stored.
        attest: attach an SBOM and a provenance statement.
        modelpack: attach a ModelPack manifest.

    Raises:
        UsageError: a value that cannot be.
    """

    platforms: tuple[str, ...] = ("linux/amd64",)
    created_s: int = 0
    own_layer_bytes: int = OWN_LAYER_BYTES
    max_layers: int = MAX_MODEL_LAYERS
    reshard_bytes: int = 0
    compression: Compression = Compression.NONE
    attest: bool = False
    modelpack: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot be."""
        wrong = [platform for platform in self.platforms if not _PLATFORM.fullmatch(platform)]
        if wrong or not self.platforms:
            raise UsageError(
                f"not a platform: {(wrong or ['none'])[0]!r}",
                where="platform",
                expected="os/architecture, such as linux/arm64",
            )
        if self.reshard_bytes < 0:
            raise UsageError(f"reshard is {self.reshard_bytes} bytes", where="reshard", expected="a size over 0")
        if self.max_layers < _LEAST_LAYERS:
            raise UsageError(f"{self.max_layers} layers at most", where="max layers", expected="at least 2")


DEFAULT_BUILD = BuildOptions()


class ModelcarPlan(Struct, frozen=True):
    """A modelcar that can be written.

    Attributes:
        layers: the model's layers, lowest first.
        images: the base of each platform, and what the image on it says of itself.
    """

    layers: tuple[LayerPlan | CompressedLayer, ...]
    images: tuple[tuple[BaseImage, ImageMetadata], ...]

    @property
    def annotations(self) -> dict[str, str]:
        """What the modelcar as a whole says of itself: all images say the same."""
        return dict(self.images[0][1].annotations)


def plan_modelcar(source: ModelSource, bases: Sequence[BaseImage], build: BuildOptions) -> ModelcarPlan:
    """Plan a modelcar; reads file sizes, and safetensors headers where the weights are cut anew.

    Args:
        source: a validated model.
        bases: the base image of each platform.
        build: how the image is made.

    Raises:
        InputError: the weights cannot be cut anew.
    """
    layers: tuple[LayerPlan | CompressedLayer, ...] = plan_layers(
        {f"{MODELS}/{name}": content for name, content in model_files(source, build).items()},
        mtime_s=build.created_s,
        own_layer_bytes=build.own_layer_bytes,
        max_layers=build.max_layers,
    )
    if build.compression is Compression.ZSTD:
        layers = tuple(CompressedLayer(layer) for layer in layers if isinstance(layer, LayerPlan))
    images = [
        (base, ImageMetadata(annotations_of(source, base, build.created_s), created_s=build.created_s))
        for base in bases
    ]
    return ModelcarPlan(layers, tuple(images))


def model_files(source: ModelSource, build: BuildOptions) -> dict[str, Path | VirtualFile]:
    """Return the files of the image's model: those of the directory, or with the weights cut anew."""
    if build.reshard_bytes:
        return reshard(source.directory, source.files, build.reshard_bytes)
    return {name: source.directory / name for name in source.files}


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
        f"{_MODEL}.format": format_of(source),
        f"{_MODEL}.parameters": str(source.parameters or ""),
        f"{_MODEL}.dtype": source.dtype,
        f"{_MODEL}.quantization": source.quantization,
    }
    return {key: value for key, value in facts.items() if value}


def format_of(source: ModelSource) -> str:
    """Return the format of the weights: `safetensors`, `gguf` or `pickle`."""
    suffixes = {name.rpartition(".")[2] for name in source.files}
    return next((kind for kind in ("safetensors", "gguf") if kind in suffixes), "pickle")


def source_date_epoch() -> int:
    """Return the time that SOURCE_DATE_EPOCH gives (https://reproducible-builds.org/specs/source-date-epoch), else 0.

    Raises:
        InputError: it is set and no number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not text.isdecimal():
        raise InputError(f"not a number of seconds: {text!r}", where="SOURCE_DATE_EPOCH", expected="seconds since 1970")
    return int(text)
