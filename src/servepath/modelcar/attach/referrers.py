"""Referrers: small manifests that name an image as their `subject`, such as its SBOM and its provenance.

The image's own digest does not change when something is attached to it. Rules: the OCI image specification 1.1
(`subject`, `artifactType`, the empty descriptor) and the OCI distribution specification 1.1 (the referrers API, and the
tag `sha256-…` that stands in for it where a registry lacks it, as Debian's docker-registry 2.8 does).
"""

from __future__ import annotations

import base64
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from servepath.errors import InputError
from servepath.modelcar.content import BytesContent, digest_of_bytes
from servepath.modelcar.layout import Layout
from servepath.modelcar.registry.reference import is_digest
from servepath.modelcar.store import (
    INDEX,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Document,
    canonical_json,
    descriptor_of,
    load_object,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servepath.modelcar.registry.repository import Repository
    from servepath.modelcar.registry.url import Url

SBOM = "application/spdx+json"
"""Artifact type, and media type of the one layer, of an SPDX 2.3 document in JSON."""
PROVENANCE = "application/vnd.in-toto+json"
"""Artifact type, and media type of the one layer, of an in-toto v1 statement."""
PREDICATE_TYPE = "in-toto.io/predicate-type"
"""Annotation of the layer and of the manifest of a statement: what kind of statement it is."""
MODELPACK = "application/vnd.cncf.model.manifest.v1+json"
"""Artifact type of a ModelPack manifest."""
EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_DATA = b"{}"
MAX_PAGES = 100
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next\b')
_NO_API = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


class Referrer(Struct, frozen=True):
    """One manifest that refers to an image: where it is, what kind it is, what it says of itself."""

    descriptor: Descriptor
    artifact_type: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of an index of referrers."""
        entry = self.descriptor.to_json() | {"artifactType": self.artifact_type}
        return entry | ({"annotations": dict(self.annotations)} if self.annotations else {})


class Attachment(Struct, frozen=True):
    """A manifest that refers to an image, with the small blobs that it needs and that no one else wrote."""

    document: Document
    blobs: tuple[tuple[Descriptor, bytes], ...]

    @property
    def referrer(self) -> Referrer:
        """The entry that lists it."""
        return referrer_of(self.document)


def make_attachment(subject: Descriptor, kind: str, data: bytes, annotations: Mapping[str, str]) -> Attachment:
    """Make the manifest of a one-file artifact: an empty config, the file as its only layer.

    Args:
        subject: the image or index that it speaks of.
        kind: artifact type, and media type of the file.
        data: the file.
        annotations: what the manifest says of itself; no time, so that the same file gives the same digest.
    """
    empty = Descriptor(EMPTY, digest_of_bytes(EMPTY_DATA), len(EMPTY_DATA))
    layer = Descriptor(kind, digest_of_bytes(data), len(data))
    inline = {"data": base64.b64encode(EMPTY_DATA).decode()}
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": empty.to_json() | inline,
        "layers": [layer.to_json() | ({"annotations": dict(annotations)} if annotations else {})],
        "subject": subject.to_json(),
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    encoded = canonical_json(manifest)
    document = Document(MANIFEST, digest_of_bytes(encoded), encoded)
    return Attachment(document, ((empty, EMPTY_DATA), (layer, data)))


def referrer_of(document: Document) -> Referrer:
    """Return the entry that lists a manifest as a referrer.

    Raises:
        InputError: the manifest is malformed.
    """
    manifest = document.json
    config = manifest.get("config") or {}
    return Referrer(
        Descriptor(document.media_type, document.digest, len(document.data)),
        str(manifest.get("artifactType") or config.get("mediaType") or ""),
        {str(key): str(value) for key, value in (manifest.get("annotations") or {}).items()},
    )


def fallback_tag(digest: str) -> str:
    """Return the tag under which a registry without the referrers API keeps the list of an image's referrers."""
    return digest.replace(":", "-", 1)


async def list_referrers(place: Repository | Layout, digest: str) -> tuple[Referrer, ...]:
    """List what refers to an image, in the registry's order; nothing when nothing does.

    Args:
        place: where the image is.
        digest: the image's or index's digest.

    Raises:
        InputError: not a digest, or the registry's list is malformed.
        RegistryError: the registry refuses or fails.
    """
    if not is_digest(digest):
        raise InputError(f"not a digest: {digest!r}", where=str(place), expected="sha256: and 64 hexadecimal digits")
    if isinstance(place, Layout):
        return tuple(referrer_of(one) for one in await place.referrers() if subject_of(one) == digest)
    listed = await _from_api(place, digest)
    return await _from_tag(place, digest) if listed is None else listed


async def write_attachment(place: Repository | Layout, attachment: Attachment) -> int:
    """Attach to an image, and return the bytes of blobs sent; attaching the same again changes nothing.

    Where a registry lacks the referrers API, two clients that attach to one image at the same moment can lose one entry
    of the list; attaching again adds it.

    Raises:
        RegistryError: the registry refuses or fails.
    """
    sent_bytes = 0
    for descriptor, data in attachment.blobs:
        if not await place.has_blob(descriptor):
            await place.write_blob(BytesContent(data), descriptor.digest, lambda _: None)
            sent_bytes += descriptor.size_bytes
    await write_referrer(place, attachment.document)
    return sent_bytes


async def write_referrer(place: Repository | Layout, document: Document) -> None:
    """Write a manifest that has a `subject`, whose blobs are there, and see that it is listed.

    Raises:
        InputError: it has no subject.
        RegistryError: the registry refuses or fails.
    """
    subject = subject_of(document)
    if isinstance(place, Layout):
        await place.write_referrer(document, referrer_of(document).to_json())
        return
    path = place.path("manifests", document.digest)
    headers = {"Content-Type": document.media_type}
    response = await place.registry.request("PUT", path, content=document.data, headers=headers)
    place.registry.expect(response, "attaching a manifest", {201})
    if response.headers.get("OCI-Subject") == subject:
        return
    entries = [entry for entry in await _from_tag(place, subject) if entry.descriptor.digest != document.digest]
    listed = [entry.to_json() for entry in (*entries, referrer_of(document))]
    data = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
    await place.write_manifest(Document(INDEX, digest_of_bytes(data), data), fallback_tag(subject))


def subject_of(document: Document) -> str:
    """Return the digest of the image that a manifest refers to.

    Raises:
        InputError: it refers to none.
    """
    return descriptor_of(document.json.get("subject"), document.digest).digest


async def _from_api(repository: Repository, digest: str) -> tuple[Referrer, ...] | None:
    """Ask the referrers API, page by page; None where the registry has none."""
    url: Url | str = repository.path("referrers", digest)
    found: list[Referrer] = []
    for _ in range(MAX_PAGES):
        response = await repository.registry.request("GET", url, headers={"Accept": INDEX})
        if response.status in _NO_API:
            return None
        repository.registry.expect(response, "listing referrers", {200})
        if not response.headers.get("Content-Type", "").startswith(INDEX):
            return None  # a web page or another API answers here
        found += _entries(response.content, str(response.url))
        following = _NEXT.search(response.headers.get("Link", ""))
        if following is None:
            return tuple(found)
        try:
            url = response.url.join(following.group(1))
        except ValueError as error:
            raise InputError("the list of referrers goes on at no address", where=str(repository)) from error
        if url.authority != response.url.authority:
            raise InputError(
                "the list of referrers goes on at another host", where=str(repository), expected=str(response.url.host)
            )
    raise InputError("the list of referrers does not end", where=str(repository), expected=f"at most {MAX_PAGES} pages")


async def _from_tag(repository: Repository, digest: str) -> tuple[Referrer, ...]:
    path = repository.path("manifests", fallback_tag(digest))
    response = await repository.registry.request("GET", path, headers={"Accept": INDEX})
    if repository.registry.expect(response, "listing referrers", {200, 404}).status == HTTPStatus.NOT_FOUND:
        return ()
    return tuple(_entries(response.content, f"{repository}:{fallback_tag(digest)}"))


def _entries(data: bytes, where: str) -> list[Referrer]:
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(f"a list of referrers of {len(data)} bytes", where=where, expected="at most 4 MiB")
    entries = load_object(data, where).get("manifests")
    if not isinstance(entries, list):
        raise InputError("a list of referrers without `manifests`", where=where, expected="an OCI image index")
    return [
        Referrer(
            descriptor_of(entry, where),
            str(entry.get("artifactType") or ""),
            {str(key): str(value) for key, value in (entry.get("annotations") or {}).items()},
        )
        for entry in entries
    ]
