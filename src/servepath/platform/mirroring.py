"""Fill a mirror: every image and chart of the lock into one OCI layout, and from there into a registry.

`fetch` runs where upstream's registries are reached. Its layout is carried into the closed network, where `publish`
puts each image and chart into the registry that is there.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from servepath.errors import InputError
from servepath.modelcar.copy import copy_image
from servepath.modelcar.layout import REF_NAME, Layout
from servepath.modelcar.registry.client import RegistryOptions, open_registry, plain_http_hosts
from servepath.modelcar.registry.reference import name_of, parse_pinned, parse_reference
from servepath.modelcar.registry.repository import Repository
from servepath.platform.mirror import OCI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from servepath.modelcar.model import Progress
    from servepath.platform.lock import ChartPin, Lock
    from servepath.platform.mirror import Mirror


@dataclass(frozen=True, slots=True)
class Mirrored:
    """One image or chart that was copied.

    Attributes:
        name: `host/repository[:tag]` upstream, or in the mirror.
        digest: `sha256:…` of its manifest or index.
        copied_bytes: bytes of blobs that were not there yet.
    """

    name: str
    digest: str
    copied_bytes: int


def wanted(lock: Lock, only: Iterable[str] = (), also: Iterable[str] = ()) -> tuple[str, ...]:
    """Name what goes into a mirror, images first.

    Args:
        lock: the pins.
        only: names of images and charts in the lock; all of them when empty.
        also: further images, by digest: what a chart starts is not in the lock.

    Returns:
        `host/repository[:tag]@sha256:…`, and `host/repository:version` for a chart whose digest is not known.

    Raises:
        InputError: the lock has no such name, or a further image has no digest.
    """
    chosen = set(only)
    unknown = sorted(chosen - {*lock.images, *lock.charts})
    if unknown:
        expected = ", ".join([*lock.images, *lock.charts])
        raise InputError(f"the lock does not name {', '.join(unknown)}", where=str(lock.path), expected=expected)
    images = [pin.reference for name, pin in lock.images.items() if not chosen or name in chosen]
    charts = [_chart_reference(pin) for name, pin in lock.charts.items() if not chosen or name in chosen]
    return (*images, *(str(parse_pinned(text)) for text in also), *charts)


async def fetch(
    references: Iterable[str],
    layout: Path,
    *,
    through: Mirror | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Mirrored, ...]:
    """Copy images and charts into one OCI layout; what is there already is not copied again.

    Args:
        references: what `wanted` gave.
        layout: the layout's directory; made if missing, added to if it is one.
        through: a mirror to read from instead of upstream.
        progress: called as bytes are written.

    Raises:
        InputError: the directory cannot be written.
        RegistryError: a registry refused or failed.
    """
    target, copied = Layout(layout), []
    async with AsyncExitStack() as stack:
        for text in references:
            upstream = parse_reference(text)
            place = parse_reference(through.image(text)) if through else upstream
            options = _options(through) if through else RegistryOptions()
            client = await stack.enter_async_context(open_registry(place.registry, options))
            source = Repository(client, place.repository)
            name = str(replace(upstream, registry=name_of(upstream.registry), digest=""))
            done = await copy_image(source, target, place.digest or place.tag, tag=name, progress=progress)
            copied.append(Mirrored(name, done.digest, done.sent_bytes))
    return tuple(copied)


async def publish(
    layout: Path, mirror: Mirror, *, progress: Callable[[Progress], None] = lambda _: None
) -> tuple[Mirrored, ...]:
    """Put every named image and chart of a layout into a mirror, under its tag too where it has one.

    Args:
        layout: what `fetch` made.
        mirror: where to.
        progress: called as bytes are sent.

    Raises:
        InputError: not a layout, or it names no image.
        RegistryError: the registry refused or failed.
    """
    source, copied = Layout(layout), []
    named = {(entry.get("annotations") or {}).get(REF_NAME, ""): entry["digest"] for entry in source.entries()}
    named.pop("", None)
    if not named:
        raise InputError("the layout names no image", where=str(layout), expected="what `servepath mirror` made")
    async with open_registry(mirror.host, _options(mirror)) as client:
        await client.ping()
        for name, digest in sorted(named.items()):
            upstream = parse_reference(name)
            target = Repository(client, mirror.repository(upstream.repository))
            done = await copy_image(source, target, digest, tag=upstream.tag, progress=progress)
            place = replace(upstream, registry=mirror.host, repository=target.name)
            copied.append(Mirrored(str(place), done.digest, done.sent_bytes))
    return tuple(copied)


def _options(mirror: Mirror) -> RegistryOptions:
    if not mirror.plain_http:
        return RegistryOptions()
    return RegistryOptions(plain_http=plain_http_hosts() | {mirror.host})


def _chart_reference(pin: ChartPin) -> str:
    # A `+` of a version is written `_` in a tag (https://helm.sh/docs/topics/registries).
    tag = pin.version.replace("+", "_")
    return f"{pin.chart.removeprefix(OCI)}:{tag}" + (f"@{pin.digest}" if pin.digest else "")
