"""Web addresses as registries name them: parsed, joined, with a query added."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

from msgspec import Struct
from msgspec.structs import replace

_SAFE = "!$%&'()*+,/:;=?@[]~"
"""What stays as it is in a path and a query: what is reserved, and the sign of what is escaped already."""
_HOST = re.compile(r"[^\s.]{1,63}(?:\.[^\s.]{1,63})*\.?", re.ASCII)
"""Labels as DNS has them (RFC 1035, section 2.3.4): the standard library raises errors of its own for others."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""`urlsplit` leaves some of these out without a word."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Url(Struct, frozen=True):
    """An address of HTTP.

    Attributes:
        scheme: `http` or `https`.
        authority: `host[:port]`, as it was written.
        path: begins with `/`; escaped.
        query: without the `?`; escaped.
        userinfo: what stands before `@`; empty for nothing.
    """

    scheme: str
    authority: str
    path: str = "/"
    query: str = ""
    userinfo: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def target(self) -> str:
        """Path and query: what a request names."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def host(self) -> str:
        """The host's name or address, without brackets."""
        return urlsplit(f"//{self.authority}").hostname or ""

    @property
    def port(self) -> int:
        """The port, by the scheme where none is written."""
        return urlsplit(f"//{self.authority}").port or _DEFAULT_PORTS[self.scheme]

    def is_at(self, authority: str) -> bool:
        """Tell whether it leads to a host, written with or without the scheme's own port."""
        ending = f":{_DEFAULT_PORTS[self.scheme]}"
        return self.authority.lower().removesuffix(ending) == authority.lower().removesuffix(ending)

    def join(self, text: str) -> Url:
        """Return the address that a text names when it is read here, such as a `Location`.

        Raises:
            ValueError: it names none.
        """
        return parse_url(urljoin(str(self), text))

    def with_query(self, **parameters: str) -> Url:
        """Return the address with parameters added."""
        added = urlencode(parameters)
        return replace(self, query=f"{self.query}&{added}" if self.query else added)

    def parameter(self, name: str) -> str:
        """Return a parameter of the query, empty when it is not there."""
        return parse_qs(self.query).get(name, [""])[0]


def parse_url(text: str) -> Url:
    """Parse an absolute address.

    Raises:
        ValueError: not an address of HTTP.
    """
    parts = urlsplit(text)
    userinfo, _, authority = parts.netloc.rpartition("@")
    is_host = authority.isascii() and _HOST.fullmatch(parts.hostname or "") and not _CONTROL.search(text)
    if parts.scheme not in _DEFAULT_PORTS or not is_host or parts.port == 0:
        raise ValueError(f"not an address: {text[:120]!r}")
    return Url(
        parts.scheme,
        authority,
        quote(parts.path, safe=_SAFE) or "/",
        quote(parts.query, safe=_SAFE),
        userinfo,
    )
