"""Whole images from registry to registry: an index, what refers to it, interruptions, memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.errors import InputError, RegistryError
from servepath.evidence import Verdict
from servepath.modelcar.attach.referrers import PROVENANCE, SBOM, list_referrers, make_attachment, write_attachment
from servepath.modelcar.build import build_and_push
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.copy import copy
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import INDEX, Descriptor, Document, canonical_json
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.faults import Faults, Rule, faulty_proxy
from tests.unit.modelcar.helpers import MIB, write_model
from tests.unit.modelcar.registries import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servepath.modelcar.model import Modelcar

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def other_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("other")) as host:
        yield host


async def push(model: Path, base: str, registry: str, repository: str, options: RegistryOptions) -> Modelcar:
    return await build_and_push(open_source(model), base, registry, repository, options=options)


async def attach_to(repository: Repository, digest: str, kind: str, data: bytes) -> str:
    subject = await repository.read_manifest(digest)
    attachment = make_attachment(
        Descriptor(subject.media_type, subject.digest, len(subject.data)), kind, data, {"test": "1"}
    )
    await write_attachment(repository, attachment)
    return attachment.document.digest


async def test_what_refers_to_an_image_travels_along_and_what_refers_to_that(
    model: Path, base: str, registry: str, other_registry: str, repository: str, options: RegistryOptions
) -> None:
    pushed = await push(model, base, registry, repository, options)
    async with open_registry(registry, options) as client:
        source = Repository(client, repository)
        sbom = await attach_to(source, pushed.digest, SBOM, b'{"spdxVersion": "SPDX-2.3"}')
        provenance = await attach_to(source, pushed.digest, PROVENANCE, b'{"a": 1}')
        signature = await attach_to(source, sbom, "application/vnd.example.signature", b"signed")
    copied = await copy(pushed.reference, other_registry, repository, options=options)
    assert copied.digest == pushed.digest
    assert set(copied.referrers) == {sbom, provenance, signature}
    async with open_registry(other_registry, options) as client:
        target = Repository(client, repository)
        listed = {entry.descriptor.digest: entry.artifact_type for entry in await list_referrers(target, pushed.digest)}
        assert listed == {sbom: SBOM, provenance: PROVENANCE}
        assert [entry.descriptor.digest for entry in await list_referrers(target, sbom)] == [signature]
    again = await copy(pushed.reference, other_registry, repository, options=options)
    assert (again.sent_bytes, again.referrers) == (0, copied.referrers)


async def test_an_index_is_copied_with_all_its_images(
    model: Path, base: str, registry: str, other_registry: str, repository: str, options: RegistryOptions
) -> None:
    first = await push(model, base, registry, repository, options)
    (model / "LICENSE").write_text("another licence\n")
    second = await push(model, base, registry, repository, options)
    async with open_registry(registry, options) as client:
        source = Repository(client, repository)
        documents = [await source.read_manifest(digest) for digest in (first.digest, second.digest)]
        entries = [Descriptor(d.media_type, d.digest, len(d.data)).to_json() for d in documents]
        data = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        index = Document(INDEX, digest_of_bytes(data), data)
        await source.write_manifest(index, "")
        sbom = await attach_to(source, second.digest, SBOM, b'{"spdxVersion": "SPDX-2.3"}')
    copied = await copy(
        f"{registry}/{repository}@{index.digest}", other_registry, repository, tag="v1", options=options
    )
    assert (copied.digest, copied.referrers) == (index.digest, (sbom,))
    for image in (first, second):
        results = await verify_content(f"{other_registry}/{repository}@{image.digest}", options=options)
        assert [r.name for r in results if r.verdict is Verdict.FAIL] == []
    async with open_registry(other_registry, options) as client:
        assert (await Repository(client, repository).read_manifest("v1")).digest == index.digest


@pytest.mark.parametrize("manifests", [None, {}, [1], [{"digest": "sha256:0"}]])
async def test_an_index_that_lists_no_manifests_is_refused(
    faults: Faults, registry: str, repository: str, options: RegistryOptions, manifests: object
) -> None:
    data = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    headers = {"Content-Type": INDEX}
    faults.rules = [Rule("GET", "manifests", status=200, body=data, headers=headers)]
    with pytest.raises(InputError):
        await copy(f"{faults.host}/{repository}@{digest_of_bytes(data)}", registry, repository, options=options)


async def test_a_tag_comes_last(
    model: Path, base: str, registry: str, other_registry: str, repository: str, options: RegistryOptions
) -> None:
    pushed = await push(model, base, registry, repository, options)
    async with open_registry(registry, options) as client:
        await attach_to(Repository(client, repository), pushed.digest, SBOM, b'{"spdxVersion": "SPDX-2.3"}')
    with faulty_proxy(other_registry) as faults:
        await copy(pushed.reference, faults.host, repository, tag="v1", options=options)
        puts = [path.rpartition("/")[2] for method, path, _ in faults.seen if method == "PUT" and "manifests" in path]
    assert puts[0] == pushed.digest
    assert puts[-1] == "v1"
    assert len(puts) == 4  # the image, its SBOM, the list of referrers, the tag


async def test_a_copy_that_was_interrupted_continues(
    model: Path, base: str, registry: str, other_registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [5 * MIB] * 3)
    pushed = await push(model, base, registry, repository, options)
    last = pushed.layers[3].digest
    one_by_one = RegistryOptions(docker_config=options.docker_config, retry=options.retry, uploads=1)
    with faulty_proxy(registry) as faults:
        faults.rules = [Rule("GET", last, cut_after_bytes=MIB), Rule("GET", last, times=99, drop_after_bytes=0)]
        origin = pushed.reference.replace(registry, faults.host)
        with pytest.raises(RegistryError):
            await copy(origin, other_registry, repository, options=one_by_one)
        with pytest.raises(RegistryError, match="404"):  # no manifest without all its blobs
            await verify_content(f"{other_registry}/{repository}@{pushed.digest}", options=options)
        faults.rules = []
        copied = await copy(origin, other_registry, repository, options=options)
    assert 0 < copied.sent_bytes < 11 * MIB  # the third shard and the small files
    results = await verify_content(copied.reference, options=options)
    assert [r.name for r in results if r.verdict is Verdict.FAIL] == []


async def test_a_source_that_is_cut_again_and_again_is_read_to_its_end(
    model: Path, base: str, registry: str, other_registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [5 * MIB])
    pushed = await push(model, base, registry, repository, options)
    with faulty_proxy(registry) as faults:
        faults.rules = [Rule("GET", pushed.layers[1].digest, times=8, cut_after_bytes=MIB)]
        copied = await copy(
            pushed.reference.replace(registry, faults.host), other_registry, repository, options=options
        )
        assert faults.rules[0].times == 0
    results = await verify_content(copied.reference, options=options)
    assert [r.name for r in results if r.verdict is Verdict.FAIL] == []


async def test_bytes_that_were_changed_on_the_way_never_become_an_image(
    model: Path, base: str, registry: str, other_registry: str, repository: str, options: RegistryOptions
) -> None:
    pushed = await push(model, base, registry, repository, options)
    layer = pushed.layers[-1].digest
    with faulty_proxy(registry) as faults:
        faults.rules = [Rule("GET", layer, times=99, change=lambda data: data.replace(b"Apache", b"Opache"))]
        with pytest.raises(RegistryError):
            await copy(pushed.reference.replace(registry, faults.host), other_registry, repository, options=options)
    async with open_registry(other_registry, options) as client:
        target = Repository(client, repository)
        assert not await target.has_blob(Descriptor("", layer, pushed.layers[-1].size_bytes))
        with pytest.raises(RegistryError, match="404"):
            await target.read_manifest(pushed.digest)


_MEASURED = """
import anyio, os, resource, sys
from servepath.modelcar.copy import copy
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def written():
    lines = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    return int(lines["write_bytes"])
async def main():
    before, written_before = peak_mib(), written()
    await copy(*sys.argv[1:])
    print(peak_mib() - before, written() - written_before)
anyio.run(main)
"""


async def test_a_copy_takes_bounded_memory_and_no_disk(
    model: Path, base: str, registry: str, other_registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [20 * MIB] * 5)  # 200 MiB
    pushed = await push(model, base, registry, repository, options)
    measured = await anyio.run_process([sys.executable, "-c", _MEASURED, pushed.reference, other_registry, repository])
    grown_mib, written_bytes = (float(value) for value in measured.stdout.split())
    assert grown_mib < 64
    assert written_bytes < MIB


async def test_a_reference_by_tag_is_refused(registry: str, options: RegistryOptions) -> None:
    with pytest.raises(InputError, match="named by tag"):
        await copy(f"{registry}/a/b:v1", registry, "c/d", options=options)
