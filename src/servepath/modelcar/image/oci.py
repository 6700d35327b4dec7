"""Images as values: a base, what is put on it, and the config and manifest that say so."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from servepath.errors import InputError
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.image.layers import LAYER_MEDIA_TYPE
from servepath.modelcar.store import (
    CONFIG,
    INDEX,
    MANIFEST,
    Descriptor,
    Document,
    canonical_json,
    descriptor_of,
    load_object,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servepath.modelcar.store import ImageSource

DEFAULT_PLATFORM = "linux/amd64"
_DOCKER_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER_MEDIA_TYPE}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{LAYER_MEDIA_TYPE}+zstd",
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_MEDIA_TYPE,
}


class BaseImage(Struct, frozen=True):
    """The image underneath.

    Attributes:
        layers: its layers, lowest first, with OCI media types.
        config: its parsed config.
        source: where its layers are read from; None when there are none.
        name: what it was called, for the annotation `org.opencontainers.image.base.name`.
        digest: digest of the manifest or index it was pinned by.
    """

    layers: tuple[Descriptor, ...] = ()
    config: dict[str, Any] = field(default_factory=lambda: {"architecture": "amd64", "os": "linux"})
    source: ImageSource | None = None
    name: str = ""
    digest: str = ""

    @property
    def platform(self) -> dict[str, str]:
        """The platform, as an index names it."""
        return {key: str(self.config[key]) for key in ("os", "architecture", "variant") if self.config.get(key)}


class ImageMetadata(Struct, frozen=True):
    """What an image says of itself.

    Attributes:
        annotations: manifest annotations; written as config labels too, which container runtimes show.
        config: settings that replace the base's in the config's `config` object, such as `Env` or `Cmd`.
        created_s: creation time, in seconds since 1970: SOURCE_DATE_EPOCH, or 0 for a time that never changes.
    """

    annotations: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    created_s: int = 0


class Image(Struct, frozen=True):
    """One platform's image as stored."""

    document: Document
    config: Descriptor
    layers: tuple[Descriptor, ...]


async def read_image(source: ImageSource, reference: str, platform: str = DEFAULT_PLATFORM) -> Image:
    """Read the manifest of an image; of an index, the manifest of one platform.

    Args:
        source: where it is.
        reference: digest or tag.
        platform: `os/architecture` to choose from an index.

    Raises:
        InputError: the platform is not in the index, or the manifest is malformed.
    """
    document = await source.read_manifest(reference)
    if document.is_index:
        document = await source.read_manifest(_choose(document, platform))
    manifest = document.json
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        raise InputError("the manifest lists no layers", where=document.digest, expected="an image manifest")
    config = descriptor_of(manifest.get("config"), document.digest)
    return Image(document, config, tuple(descriptor_of(layer, document.digest) for layer in layers))


async def read_base(source: ImageSource, digest: str, *, name: str = "", platform: str = DEFAULT_PLATFORM) -> BaseImage:
    """Read a base image by digest.

    Args:
        source: where it is.
        digest: digest of its manifest or index.
        name: what it is called.
        platform: `os/architecture` to choose from an index.

    Raises:
        InputError: not an image, or not of this platform.
    """
    image = await read_image(source, digest, platform)
    config = load_object(await read_all(source, image.config), image.config.digest)
    seen = f"{config.get('os')}/{config.get('architecture')}"
    if seen != platform:
        raise InputError(f"the base image is for {seen}", where=f"{name or digest}", expected=platform)
    layers = tuple(
        Descriptor(_DOCKER_LAYERS.get(layer.media_type, layer.media_type), layer.digest, layer.size_bytes)
        for layer in image.layers
    )
    return BaseImage(layers, config, source, name, digest)


async def read_all(source: ImageSource, descriptor: Descriptor) -> bytes:
    """Read a small blob, a config for example, and check its digest.

    Raises:
        InputError: its bytes are not those of its digest.
    """
    sha256 = hashlib.sha256()
    data = b"".join([chunk async for chunk in source.blob(descriptor).open(sha256.update)])
    if f"sha256:{sha256.hexdigest()}" != descriptor.digest:
        raise InputError("a blob's bytes are not those of its digest", where=descriptor.digest)
    return data


def make_config(base: BaseImage, layers: Sequence[tuple[str, str]], metadata: ImageMetadata) -> bytes:
    """Return the image config: the base's, without its entrypoint, with the new layers on top.

    KServe starts a modelcar's containers by `args` alone, so an ENTRYPOINT would swallow them.

    Args:
        base: the image underneath.
        layers: (digest of the uncompressed layer, what it holds) of each new layer.
        metadata: what the image says of itself.
    """
    created = created_text(metadata.created_s)
    inherited = {key: value for key, value in (base.config.get("config") or {}).items() if key != "Entrypoint"}
    settings = inherited | dict(metadata.config)
    settings["Labels"] = (inherited.get("Labels") or {}) | dict(metadata.annotations)
    diff_ids = (base.config.get("rootfs") or {}).get("diff_ids") or []
    history = base.config.get("history") or []
    config: dict[str, Any] = {
        key: base.config[key] for key in ("architecture", "os", "variant", "os.version") if key in base.config
    }
    config |= {
        "created": created,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, *(digest for digest, _ in layers)]},
        "history": [*history, *({"created": created, "created_by": f"servepath: {text}"} for _, text in layers)],
    }
    return canonical_json(config)


def make_manifest(config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> Document:
    """Return the image manifest."""
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    data = canonical_json(manifest)
    return Document(MANIFEST, digest_of_bytes(data), data)


def make_index(images: Sequence[tuple[Document, BaseImage]], annotations: Mapping[str, str]) -> Document:
    """Return an index of one image per platform, in the order given."""
    index: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            manifest_descriptor(document).to_json() | {"platform": base.platform} for document, base in images
        ],
    }
    if annotations:
        index["annotations"] = dict(annotations)
    data = canonical_json(index)
    return Document(INDEX, digest_of_bytes(data), data)


def manifest_descriptor(document: Document) -> Descriptor:
    """Return the descriptor of a manifest or index."""
    return Descriptor(document.media_type, document.digest, len(document.data))


def config_descriptor(config: bytes) -> Descriptor:
    """Return the descriptor of an image config."""
    return Descriptor(CONFIG, digest_of_bytes(config), len(config))


def created_text(created_s: int) -> str:
    """Return the time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _choose(index: Document, platform: str) -> str:
    entries = index.json.get("manifests") or []
    seen = []
    for entry in entries:
        where = entry.get("platform") or {}
        name = f"{where.get('os')}/{where.get('architecture')}"
        if name == platform:
            return str(entry["digest"])
        seen.append(name)
    raise InputError(
        "the index has no image for the platform", where=index.digest, expected=f"{platform} among {', '.join(seen)}"
    )
