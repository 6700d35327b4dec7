"""Referrers against a real registry without the referrers API, and against one of our own that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.errors import InputError
from servepath.modelcar.attach.referrers import (
    PROVENANCE,
    SBOM,
    fallback_tag,
    list_referrers,
    make_attachment,
    subject_of,
    write_attachment,
)
from servepath.modelcar.content import BytesContent, digest_of_bytes
from servepath.modelcar.registry.client import open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.store import CONFIG, INDEX, MANIFEST, Descriptor, Document, canonical_json
from tests.unit.modelcar.faults import Rule

if TYPE_CHECKING:
    from servepath.modelcar.registry.client import RegistryOptions
    from tests.unit.modelcar.faults import Faults

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
        assert await write_attachment(target, sbom) == len(b'{}{"a":1}')
        assert await write_attachment(target, statement) == len(b'{"b":1}')
        assert await write_attachment(target, sbom) == 0
        listed = await list_referrers(target, image.digest)
        assert [entry.artifact_type for entry in listed] == [PROVENANCE, SBOM]
        assert listed[0].annotations == {"in-toto.io/predicate-type": "x"}
        document = await target.read_manifest(listed[1].descriptor.digest)
        assert document == sbom.document
        assert subject_of(document) == image.digest
        tags = (await client.request("GET", f"/v2/{repository}/tags/list")).json()["tags"]
    assert tags == [fallback_tag(image.digest)]


async def test_a_later_attachment_joins_the_list(registry: str, repository: str, options: RegistryOptions) -> None:
    async with open_registry(registry, options) as client:
        target = Repository(client, repository)
        image = await push_image(target)
        first, second = (make_attachment(image, SBOM, data, {}) for data in (b"1", b"2"))
        await write_attachment(target, first)
        await write_attachment(target, second)
        listed = {entry.descriptor.digest for entry in await list_referrers(target, image.digest)}
        assert listed == {first.document.digest, second.document.digest}


async def test_a_registry_with_the_referrers_api_keeps_its_own_list(
    faults: Faults, repository: str, options: RegistryOptions
) -> None:
    """Answers of the distribution specification 1.1: the header OCI-Subject, an index page by page."""
    async with open_registry(faults.host, options) as client:
        target = Repository(client, repository)
        image = await push_image(target)
        first, second = (make_attachment(image, SBOM, data, {}) for data in (b"1", b"2"))
        pages = [canonical_json({"manifests": [entry.referrer.to_json()]}) for entry in (first, second)]
        of_index = {"Content-Type": INDEX}
        following = of_index | {"Link": f'</v2/{repository}/referrers/{image.digest}?page=2>; rel="next"'}
        faults.rules += [
            Rule("PUT", "/manifests/", times=2, change_headers=lambda headers: headers | {"OCI-Subject": image.digest}),
            Rule("GET", "/referrers/", status=200, headers=following, body=pages[0]),
            Rule("GET", "page=2", status=200, headers=of_index, body=pages[1]),
        ]
        await write_attachment(target, first)
        await write_attachment(target, second)
        listed = await list_referrers(target, image.digest)
        assert [entry.descriptor.digest for entry in listed] == [first.document.digest, second.document.digest]
    assert faults.count("GET", fallback_tag(image.digest)) == 0
    assert faults.count("PUT", fallback_tag(image.digest)) == 0


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({"Content-Type": INDEX}, b"[]", "a JSON list"),
        ({"Content-Type": INDEX}, b'{"manifests": 1}', "without `manifests`"),
        ({"Content-Type": INDEX}, b'{"manifests": [{}]}', "not a descriptor"),
        (
            {"Content-Type": INDEX, "Link": '<http://127.0.0.1:1/v2/>; rel="next"'},
            b'{"manifests": []}',
            "goes on at another host",
        ),
    ],
)
async def test_a_malformed_list_is_refused(
    faults: Faults, repository: str, options: RegistryOptions, headers: dict[str, str], body: bytes, message: str
) -> None:
    faults.rules.append(Rule("GET", "/referrers/", status=200, headers=headers, body=body))
    async with open_registry(faults.host, options) as client:
        with pytest.raises(InputError, match=message):
            await list_referrers(Repository(client, repository), f"sha256:{'0' * 64}")


async def test_a_list_that_does_not_end_is_refused(faults: Faults, repository: str, options: RegistryOptions) -> None:
    again = {"Content-Type": INDEX, "Link": '<?again>; rel="next"'}
    faults.rules.append(Rule("GET", "/referrers/", times=1000, status=200, headers=again, body=b'{"manifests": []}'))
    async with open_registry(faults.host, options) as client:
        with pytest.raises(InputError, match="does not end"):
            await list_referrers(Repository(client, repository), f"sha256:{'0' * 64}")


async def test_a_web_page_is_no_list(faults: Faults, repository: str, options: RegistryOptions) -> None:
    faults.rules.append(Rule("GET", "/referrers/", status=200, headers={"Content-Type": "text/html"}, body=b"<html>"))
    async with open_registry(faults.host, options) as client:
        assert await list_referrers(Repository(client, repository), f"sha256:{'0' * 64}") == ()


async def test_what_is_no_digest_or_no_referrer_is_refused(
    registry: str, repository: str, options: RegistryOptions
) -> None:
    async with open_registry(registry, options) as client:
        with pytest.raises(InputError, match="not a digest"):
            await list_referrers(Repository(client, repository), "latest")
    with pytest.raises(InputError, match="not a descriptor"):
        subject_of(Document(MANIFEST, "sha256:x", b"{}"))
