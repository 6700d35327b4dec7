"""The checks of one image: what its manifest and config say, and whether its layers hold what they say.

Each check is a function: its docstring is what it expects, what it returns is what it saw, and it raises `FoundError`
with what it found instead, or `SkippedError` with why it could not look.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from servepath.errors import InputError, ServepathError
from servepath.modelcar.image.layers import LAYER_MEDIA_TYPE
from servepath.modelcar.image.oci import read_all
from servepath.modelcar.source.safetensors import Header, dtype_of
from servepath.modelcar.source.weight_map import INDEX_SUFFIX, check_weight_map
from servepath.modelcar.store import load_object
from servepath.parallel import run_all

if TYPE_CHECKING:
    from servepath.modelcar.checking.examine import LayerContents
    from servepath.modelcar.checking.tarwalk import TarEntry
    from servepath.modelcar.image.oci import Image
    from servepath.modelcar.registry.repository import Repository

_ROOT = "models"
_MODEL = "io.servepath.model"
_READABLE, _LISTABLE = 0o444, 0o555
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


class FoundError(Exception):
    """What a check found instead of what it expected."""


class SkippedError(Exception):
    """Why a check could not be made."""


@dataclass(frozen=True, slots=True)
class Examined:
    """An image and what is in it.

    Attributes:
        repository: where it is.
        image: its manifest.
        platform: `os/architecture` as the index says; empty for an image that is not in an index.
        layers: what each layer holds, lowest first.
    """

    repository: Repository
    image: Image
    platform: str
    layers: tuple[LayerContents, ...]

    @property
    def annotations(self) -> dict[str, str]:
        """The manifest's annotations."""
        found = self.image.document.json.get("annotations")
        return found if isinstance(found, dict) else {}

    @property
    def files(self) -> dict[str, TarEntry]:
        """The files below /models, by path relative to it, as a container sees them: later layers win."""
        seen: dict[str, TarEntry] = {}
        for layer in self.layers:
            for entry in layer.entries:
                folder, _, name = entry.name.rpartition("/")
                if name.startswith(_WHITEOUT):
                    gone = folder if name == _OPAQUE else f"{folder}/{name.removeprefix(_WHITEOUT)}".strip("/")
                    seen = {n: e for n, e in seen.items() if n != gone and not n.startswith(f"{gone}/")}
                elif entry.is_file:
                    seen[entry.name] = entry
        prefix = f"{_ROOT}/"
        return {name.removeprefix(prefix): entry for name, entry in seen.items() if name.startswith(prefix)}

    def headers(self) -> dict[str, Header]:
        """Headers of the safetensors files below /models.

        Raises:
            InputError: one is not usable.
        """
        headers: dict[str, Header] = {}
        for name in self.files:
            found = self._last(name, [layer.headers for layer in self.layers])
            if isinstance(found, InputError):
                raise found
            if isinstance(found, Header):
                headers[name] = found
        return headers

    def document(self, name: str) -> bytes | None:
        """A small file below /models that was kept, None if it was not."""
        found = self._last(name, [layer.documents for layer in self.layers])
        return found if isinstance(found, bytes) else None

    def require_listed(self) -> None:
        """Stop a check that needs every entry of every layer."""
        for layer in self.layers:
            if layer.problem:
                raise FoundError(f"{layer.descriptor.digest} cannot be listed: {layer.problem}")
        for layer in self.layers:
            if layer.unread:
                raise SkippedError(f"{layer.unread}; --content reads it whole")

    def _last(self, name: str, kept: list[dict[str, Any]]) -> Any:
        return next((found[f"{_ROOT}/{name}"] for found in reversed(kept) if f"{_ROOT}/{name}" in found), None)


async def check_manifest(examined: Examined) -> str:
    """The manifest's bytes hash to its digest, and it lists layers."""
    if not examined.image.layers:
        raise FoundError("no layers")
    await examined.repository.read_manifest(examined.image.document.digest)
    return f"{len(examined.image.layers)} layers, {examined.image.document.digest}"


async def check_config(examined: Examined) -> str:
    """The config's bytes hash to its digest, it has no entrypoint, and its platform and layers are the manifest's."""
    image, config = examined.image, await _config(examined)
    settings = config.get("config")
    if entrypoint := (settings if isinstance(settings, dict) else {}).get("Entrypoint"):
        raise FoundError(f"Entrypoint {entrypoint}: KServe's containers pass their command as args")
    platform = f"{config.get('os')}/{config.get('architecture')}"
    if examined.platform and platform != examined.platform:
        raise FoundError(f"the config is for {platform}, the index says {examined.platform}")
    diff_ids = diff_ids_of(config)
    if len(diff_ids) != len(image.layers):
        raise FoundError(f"{len(diff_ids)} diff_ids for {len(image.layers)} layers")
    for layer, diff_id in zip(image.layers, diff_ids, strict=True):
        if layer.media_type == LAYER_MEDIA_TYPE and layer.digest != diff_id:
            raise FoundError(f"the uncompressed layer {layer.digest} has diff_id {diff_id}")
    return f"{image.config.digest}, {platform}, no entrypoint, {len(diff_ids)} layers"


async def check_blobs(examined: Examined) -> str:
    """Every blob is there, with the size that the manifest says."""
    blobs = [examined.image.config, *examined.image.layers]
    found = await run_all([partial(examined.repository.has_blob, blob) for blob in blobs], 4)
    missing = [blob.digest for blob, is_there in zip(blobs, found, strict=True) if not is_there]
    if missing:
        raise FoundError(f"missing: {', '.join(missing)}")
    return f"{len(blobs)} blobs, {sum(blob.size_bytes for blob in blobs)} bytes"


async def check_members(examined: Examined) -> str:
    """The directory models/ holds files that any user can read, under names that stay inside it."""
    examined.require_listed()
    if not examined.files:
        raise FoundError("no file under models/")
    entries = [entry for layer in examined.layers for entry in layer.entries if _is_below(entry.name)]
    if odd := [entry.name for entry in entries if _is_odd(entry)]:
        raise FoundError(f"neither files, directories nor links inside models/: {', '.join(map(repr, odd[:5]))}")
    hidden = [entry.name for entry in entries if entry.is_file and entry.mode & _READABLE != _READABLE]
    hidden += [entry.name for entry in entries if entry.is_directory and entry.mode & _LISTABLE != _LISTABLE]
    if hidden:
        raise FoundError(f"not readable by any user: {', '.join(map(repr, hidden[:5]))}")
    return f"{len(examined.files)} files, {sum(entry.size_bytes for entry in examined.files.values())} bytes"


async def check_safetensors(examined: Examined) -> str:
    """Every safetensors header parses, fits its file, and its tensors cover the file without holes or overlaps."""
    examined.require_listed()
    headers = examined.headers()
    if not headers:
        raise SkippedError("no safetensors files")
    tensors = sum(len(header.tensors) for header in headers.values())
    return f"{len(headers)} files, {tensors} tensors, {sum(h.parameters for h in headers.values())} parameters"


async def check_weight_maps(examined: Examined) -> str:
    """Every tensor that an index of shards names is in the shard that it names; config.json is a JSON object."""
    examined.require_listed()
    headers = _usable_headers(examined)
    if (config := examined.document("config.json")) is not None:
        load_object(config, "config.json")
    indices = [name for name in examined.files if name.endswith(INDEX_SUFFIX)]
    if not indices:
        raise SkippedError("no index of shards")
    counts = [check_weight_map(examined.document(name) or b"", name, headers) for name in indices]
    return f"{sum(counts)} tensors in {len(headers)} files"


async def check_annotations(examined: Examined) -> str:
    """The annotations are the config's labels, and what they say of the model is what the layers hold."""
    said = {
        key.removeprefix(f"{_MODEL}."): value for key, value in examined.annotations.items() if key.startswith(_MODEL)
    }
    if not said:
        raise SkippedError(f"no annotation {_MODEL}.…: this image was not made by servepath")
    try:
        settings = (await _config(examined)).get("config")
    except ServepathError:
        raise SkippedError("the config cannot be read") from None
    labels = settings.get("Labels") if isinstance(settings, dict) else None
    labels = labels if isinstance(labels, dict) else {}
    differing = [key for key, value in examined.annotations.items() if labels.get(key) != value]
    if differing:
        raise FoundError(f"not the label of the same name: {', '.join(differing[:5])}")
    examined.require_listed()
    headers = _usable_headers(examined)
    seen = (
        {"parameters": str(sum(h.parameters for h in headers.values())), "dtype": dtype_of(headers.values())}
        if headers
        else {}
    )
    wrong = [f"{key} {seen[key]}, annotated {said[key]}" for key in seen if key in said and said[key] != seen[key]]
    if wrong:
        raise FoundError("; ".join(wrong))
    return f"{len(examined.annotations)} annotations; " + ", ".join(f"{k} {v}" for k, v in sorted(said.items()))


async def check_content(examined: Examined) -> str:
    """Every blob's bytes hash to its digest, and every layer's tar to its diff_id."""
    diff_ids = diff_ids_of(await _config(examined))
    for layer, diff_id in zip(examined.layers, diff_ids, strict=False):
        if layer.problem:
            raise FoundError(f"{layer.descriptor.digest}: {layer.problem}")
        if layer.digest != layer.descriptor.digest:
            raise FoundError(f"{layer.descriptor.digest} holds other bytes: {layer.digest}")
        if layer.diff_id != diff_id:
            raise FoundError(f"{layer.descriptor.digest} unpacks to {layer.diff_id}, the config says {diff_id}")
    size_bytes = sum(layer.descriptor.size_bytes for layer in examined.layers)
    return f"{len(examined.layers)} layers, {size_bytes} bytes read"


PART_CHECKS = (
    check_manifest,
    check_config,
    check_blobs,
    check_annotations,
    check_members,
    check_safetensors,
    check_weight_maps,
)
"""Made from the manifest, the config and parts of the layers."""
WHOLE_CHECKS = (*PART_CHECKS, check_content)
"""Made from every byte."""


def diff_ids_of(config: dict[str, Any]) -> list[Any]:
    """Return the digests of the uncompressed layers that an image config lists."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    return found if isinstance(found, list) else []


async def _config(examined: Examined) -> dict[str, Any]:
    config = examined.image.config
    return load_object(await read_all(examined.repository, config), config.digest)


def _usable_headers(examined: Examined) -> dict[str, Header]:
    try:
        return examined.headers()
    except InputError:
        raise SkippedError("a safetensors header is not usable") from None


def _is_below(name: str) -> bool:
    return name == _ROOT or name.startswith(f"{_ROOT}/")


def _is_odd(entry: TarEntry) -> bool:
    """Tell whether an entry is no file, no directory and no link that stays below /models, or has a name with `..`."""
    if ".." in entry.name.split("/"):
        return True
    if entry.is_file or entry.is_directory:
        return False
    target = entry.link if entry.is_hard_link else posixpath.join(posixpath.dirname(entry.name), entry.link)
    return not entry.link or not _is_below(posixpath.normpath(target))
