"""Image references: `host[:port]/repository[:tag][@sha256:…]`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from servepath.errors import InputError

DOCKER_HUB = "registry-1.docker.io"
"""Where Docker Hub answers; references name it `docker.io`, where nothing answers."""
HUB_NAMES = ("docker.io", "index.docker.io", DOCKER_HUB)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_REPOSITORY = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed image reference; `digest` or `tag` may be empty."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Parse a reference; names without a host are Docker Hub's, as container tools read them.

    Raises:
        InputError: not a reference.
    """
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise InputError(f"not a digest: {digest!r}", where=text, expected="sha256: and 64 hexadecimal digits")
    host, slash, path = rest.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = DOCKER_HUB, rest
    path, _, tag = path.partition(":")
    if tag and not is_tag(tag):
        raise InputError(f"not a tag: {tag!r}", where=text, expected="letters, digits, `_`, `.` and `-`, at most 128")
    return Reference(address_of(host), check_repository(repository_of(host, path)), tag, digest)


def parse_pinned(text: str) -> Reference:
    """Parse a reference that must carry a digest.

    Raises:
        InputError: not a reference, or one by tag alone: a tag can name another image tomorrow.
    """
    reference = parse_reference(text)
    if not reference.digest:
        raise InputError(
            "the image is named by tag",
            where=text,
            expected="repository@sha256:…, because a tag can name another image tomorrow",
            next_command=f"skopeo inspect --format '{{{{.Digest}}}}' docker://{text}",
        )
    return reference


def check_repository(name: str) -> str:
    """Return the repository's name if a registry can carry it.

    Raises:
        InputError: not a repository name of the OCI distribution specification.
    """
    if not _REPOSITORY.fullmatch(name) or len(name) > _MAX_REPOSITORY:
        raise InputError(
            f"not a repository name: {name!r}",
            expected="lower-case letters and digits, separated by `.`, `_`, `-` or `/`, at most 255 characters",
        )
    return name


def is_digest(text: str) -> bool:
    """Tell whether the text is a `sha256:…` digest."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Tell whether the text can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_hub(host: str) -> bool:
    """Tell whether the host is Docker Hub, under any of its names."""
    return host in HUB_NAMES


def name_of(host: str) -> str:
    """Give a registry's name in references: `docker.io` for Docker Hub under any of its names."""
    return HUB_NAMES[0] if is_hub(host) else host


def address_of(host: str) -> str:
    """Give the `host[:port]` where a registry answers."""
    return DOCKER_HUB if is_hub(host) else host


def repository_of(host: str, path: str) -> str:
    """Give the repository that a path names: one word alone is Docker Hub's own there."""
    return f"library/{path}" if is_hub(host) and "/" not in path else path


def is_loopback(host: str) -> bool:
    """Tell whether `host[:port]` is this machine: the only place where plain HTTP needs no permission."""
    name = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
