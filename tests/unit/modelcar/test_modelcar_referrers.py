"""Referrers against a real registry without the referrers API, and against one of our own that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.errors import InputError
from servepath.modelcar.content import BytesContent, digest_of_bytes
from servepath.modelcar.referrers import (
    PROVENANCE,
    SBOM,
    attach,
    fallback_tag,
    list_referrers,
    make_attachment,
    subject_of,
)
from servepath.modelcar.registry import open_registry
from servepath.modelcar.repository import Repository
from servepath.modelcar.store import CONFIG, MANIFEST, Descriptor, Document, canonical_json

if TYPE_CHECKING:
    from servepath.modelcar.registry import RegistryOptions

pytestmark = pytest.mark.anyio


async def push_image(target: Repository) -> Descriptor:
    config = b'{"architecture":"amd64","os":"linux"}'
    digest = (await target.write_blob(BytesContent(config), digest_of_bytes(config), lambda _: None)).digest
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(CONFIG, digest, len(config)).to_json(),
        "layers": [],
    }
    data = canonical_json(manifest)
    await target.write_manifest(Document(MANIFEST, digest_of_bytes(data), data), "")
    return Descriptor(MANIFEST, digest_of_bytes(data), len(data))


async def test_what_is_attached_is_listed_once(registry: str, repository: str, options: RegistryOptions) -> None:
    async with open_registry(registry, options) as client:
        target = Repository(client, repository)
        image = await push_image(target)
        assert await list_referrers(target, image.digest) == ()
        sbom = make_attachment(image, SBOM, b'{"a":1}', {})
        statement = make_attachment(image, PROVENANCE, b'{"b":1}', {"in-toto.io/predicate-type": "x"})
        assert await attach(target, [sbom, statement]) == len(b'{}{"a":1}{"b":1}')
        assert await attach(target, [sbom, statement]) == 0
        listed = await list_referrers(target, image.digest)
        assert [entry.artifact_type for entry in listed] == [SBOM, PROVENANCE]
        assert listed[1].annotations == {"in-toto.io/predicate-type": "x"}
        document = await target.read_manifest(listed[0].descriptor.digest)
        assert document == sbom.document
        assert subject_of(document) == image.digest
        tags = (await client.request("GET", f"/v2/{repository}/tags/list")).json()["tags"]
    assert tags == [fallback_tag(image.digest)]


async def test_a_later_attachment_joins_the_list(registry: str, repository: str, options: RegistryOptions) -> None:
    async with open_registry(registry, options) as client:
        target = Repository(client, repository)
        image = await push_image(target)
        first, second = (make_attachment(image, SBOM, data, {}) for data in (b"1", b"2"))
        await attach(target, [first])
        await attach(target, [second])
        listed = {entry.descriptor.digest for entry in await list_referrers(target, image.digest)}
        assert listed == {first.document.digest, second.document.digest}


async def test_what_is_no_digest_or_no_referrer_is_refused(
    registry: str, repository: str, options: RegistryOptions
) -> None:
    async with open_registry(registry, options) as client:
        with pytest.raises(InputError, match="not a digest"):
            await list_referrers(Repository(client, repository), "latest")
    with pytest.raises(InputError, match="not a descriptor"):
        subject_of(Document(MANIFEST, "sha256:x", b"{}"))
