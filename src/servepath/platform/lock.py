"""`manifests/lock.yaml`: every image by digest, every chart by version and digest. The only place that pins."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from servepath.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T = TypeVar("T")

SCHEMA = "servepath.lock/v1"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ImagePin:
    """An image that servepath starts.

    Attributes:
        name: its name in the lock.
        reference: `host/repository:tag@sha256:…`.
    """

    name: str
    reference: str


@dataclass(frozen=True, slots=True)
class ChartPin:
    """A Helm chart in an OCI registry.

    Attributes:
        name: its name in the lock, and the name of its release.
        chart: `oci://host/repository`.
        version: its version, which helm is given.
        digest: `sha256:…` of its manifest, empty where the lock says `unknown`.
        plain_http: whether its registry is spoken to without TLS: a mirror of a closed network, never one of the lock.
    """

    name: str
    chart: str
    version: str
    digest: str = ""
    plain_http: bool = False

    @property
    def source(self) -> str:
        """What `helm` is given: the chart at its digest where it is known."""
        return f"{self.chart}@{self.digest}" if self.digest else self.chart

    @property
    def digest_command(self) -> str:
        """The command whose last line is the digest of this version: helm prints it for what it pulled."""
        return f"helm pull {self.chart} --version {self.version}"


@dataclass(frozen=True, slots=True)
class Release:
    """A file of a project's release.

    Attributes:
        name: its name in the lock.
        version: the release.
        url: where it is.
    """

    name: str
    version: str
    url: str


@dataclass(frozen=True, slots=True)
class Lock:
    """What `manifests/lock.yaml` says.

    Attributes:
        path: the file.
        images: by name.
        charts: by name.
        releases: by name.
    """

    path: Path
    images: Mapping[str, ImagePin] = field(default_factory=dict)
    charts: Mapping[str, ChartPin] = field(default_factory=dict)
    releases: Mapping[str, Release] = field(default_factory=dict)

    def image(self, name: str) -> ImagePin:
        """Give an image.

        Raises:
            InputError: the lock has none of this name.
        """
        return _named(self.images, name, self.path)

    def chart(self, name: str) -> ChartPin:
        """Give a chart.

        Raises:
            InputError: the lock has none of this name.
        """
        return _named(self.charts, name, self.path)

    def release(self, name: str) -> Release:
        """Give a release's file.

        Raises:
            InputError: the lock has none of this name.
        """
        return _named(self.releases, name, self.path)


def read(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        InputError: it is missing, no YAML, an image has no digest, or a chart has neither a digest nor `unknown`.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the lock cannot be read: {error.strerror}", where=str(path)) from error
    except yaml.YAMLError as error:
        raise InputError(f"the lock is not YAML: {error}", where=str(path)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError("not a lock file", where=str(path), expected=f"schema: {SCHEMA}")
    try:
        return Lock(
            path,
            {name: _image(name, entry, path) for name, entry in document["images"].items()},
            {name: _chart(name, entry, path) for name, entry in document["charts"].items()},
            {name: Release(name, entry["version"], entry["url"]) for name, entry in document["releases"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"an entry is not complete: {type(error).__name__} {error}", where=str(path)) from error


def _image(name: str, entry: Mapping[str, Any], path: Path) -> ImagePin:
    reference = str(entry["image"])
    if not _DIGEST.fullmatch(reference.partition("@")[2]):
        raise InputError(
            f"image {name} is not pinned",
            where=str(path),
            expected=f"{reference.partition('@')[0]}@sha256:…",
            next_command=f"crane digest {reference.partition('@')[0]}",
        )
    return ImagePin(name, reference)


def _chart(name: str, entry: Mapping[str, Any], path: Path) -> ChartPin:
    digest = str(entry["digest"])
    if digest == _UNKNOWN:
        return ChartPin(name, entry["chart"], entry["version"])
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"chart {name} is not pinned", where=str(path), expected=f"sha256:… or {_UNKNOWN}")
    return ChartPin(name, entry["chart"], entry["version"], digest)


def _named(entries: Mapping[str, T], name: str, path: Path) -> T:
    if name not in entries:
        raise InputError(f"no entry {name}", where=str(path), expected=", ".join(sorted(entries)))
    return entries[name]
