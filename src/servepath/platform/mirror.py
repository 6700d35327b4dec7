"""A registry that stands in for all others, and how the lock reads from it.

An air-gapped network reaches one registry. It has every image under the repository that it has upstream, without the
upstream host: `ghcr.io/astral-sh/uv` is `astral-sh/uv` there. Container engines ask mirrors in the same way, so nodes
need no other name for an image, and every digest stays what it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from servepath.errors import UsageError
from servepath.modelcar.registry.reference import check_repository, is_loopback, parse_reference

if TYPE_CHECKING:
    from servepath.platform.lock import ChartPin, Lock

_ADDRESS = re.compile(
    r"(?P<scheme>https?://)?(?P<host>[\w.-]+(?::\d+)?|\[[0-9a-f:.]+\](?::\d+)?)(?:/(?P<prefix>.+?))?/?"
)
OCI = "oci://"


@dataclass(frozen=True, slots=True)
class Mirror:
    """A registry that has upstream's images under their own repositories.

    Attributes:
        host: `host[:port]`.
        prefix: what comes before every repository there; may be empty.
        plain_http: whether it is spoken to without TLS.
    """

    host: str
    prefix: str = ""
    plain_http: bool = False

    @property
    def address(self) -> str:
        """`host[:port][/prefix]`, as it begins an image's name."""
        return f"{self.host}/{self.prefix}" if self.prefix else self.host

    @property
    def url(self) -> str:
        """Where container engines ask for it."""
        return f"{'http' if self.plain_http else 'https'}://{self.host}"

    def repository(self, upstream: str) -> str:
        """Give the repository here of one upstream, such as `library/python`."""
        return f"{self.prefix}/{upstream}" if self.prefix else upstream

    def image(self, reference: str) -> str:
        """Give the name here of an upstream image; tag and digest stay."""
        upstream = parse_reference(reference)
        return str(replace(upstream, registry=self.host, repository=self.repository(upstream.repository)))

    def chart(self, pin: ChartPin) -> ChartPin:
        """Give a chart as it is to be had here."""
        upstream = parse_reference(pin.chart.removeprefix(OCI))
        chart = f"{OCI}{self.host}/{self.repository(upstream.repository)}"
        return replace(pin, chart=chart, plain_http=self.plain_http)


def parse_mirror(text: str) -> Mirror:
    """Read `[http://|https://]host[:port][/prefix]`; without a scheme it is TLS, but for a loopback host.

    Raises:
        UsageError: it is none.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UsageError(f"not a registry: {text!r}", where="mirror", expected="[http://]host[:port][/prefix]")
    prefix = check_repository(found["prefix"]) if found["prefix"] else ""
    plain = found["scheme"] == "http://" or (not found["scheme"] and is_loopback(found["host"]))
    return Mirror(found["host"], prefix, plain)


def mirrored_lock(lock: Lock, mirror: Mirror) -> Lock:
    """Give a lock whose images and charts are named as a mirror has them; every pin stays what it is."""
    images = {name: replace(pin, reference=mirror.image(pin.reference)) for name, pin in lock.images.items()}
    charts = {name: mirror.chart(pin) for name, pin in lock.charts.items()}
    return replace(lock, images=images, charts=charts)
