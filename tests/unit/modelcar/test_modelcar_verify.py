"""Verify finds each thing that can be wrong with an image in a registry, and nothing in one that is right."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import zstandard

from servepath.errors import InputError, RegistryError
from servepath.evidence import CheckResult, Verdict
from servepath.modelcar.attach.referrers import PROVENANCE, SBOM, make_attachment, write_attachment
from servepath.modelcar.build import build_and_push
from servepath.modelcar.checking import examine
from servepath.modelcar.content import BytesContent, digest_of_bytes
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import CONFIG, INDEX, MANIFEST, Descriptor, Document, canonical_json
from servepath.modelcar.verify import verify, verify_content
from tests.unit.modelcar.faults import Faults, Rule
from tests.unit.modelcar.helpers import MIB, header_of, safetensors_bytes, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.anyio
TAR = "application/vnd.oci.image.layer.v1.tar"
SHARD = safetensors_bytes(header_of({"a": ("BF16", [4])}), bytes(8))
INDEX_JSON = json.dumps({"weight_map": {"a": "model.safetensors"}}).encode()


@dataclass
class Entry:
    """One entry of a layer that a test puts together."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    link: str = ""


@dataclass
class Handmade:
    """An image that no builder would make."""

    entries: Sequence[Entry] = ()
    media_type: str = TAR
    pack: Callable[[bytes], bytes] = bytes
    config: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    diff_ids: list[str] | None = None


MODELS = Entry("models", mode=0o755, kind=tarfile.DIRTYPE)
GOOD = (
    MODELS,
    Entry("models/config.json", b"{}"),
    Entry("models/model.safetensors", SHARD),
    Entry("models/model.safetensors.index.json", INDEX_JSON),
)


def tar_of(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode, info.type, info.linkname, info.size = entry.mode, entry.kind, entry.link, len(entry.data)
            archive.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


async def put(image: Handmade, host: str, repository: str, options: RegistryOptions) -> str:
    """Push it and return its reference."""
    tar = tar_of(image.entries)
    layer = image.pack(tar)
    diff_ids = [digest_of_bytes(tar)] if image.diff_ids is None else image.diff_ids
    config = canonical_json(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}} | image.config
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(CONFIG, digest_of_bytes(config), len(config)).to_json(),
        "layers": [Descriptor(image.media_type, digest_of_bytes(layer), len(layer)).to_json()],
    }
    if image.annotations:
        manifest["annotations"] = image.annotations
    return await put_documents(host, repository, options, [layer, config], manifest)


async def put_documents(
    host: str, repository: str, options: RegistryOptions, blobs: Sequence[bytes], manifest: dict[str, Any]
) -> str:
    async with open_registry(host, options) as client:
        target = Repository(client, repository)
        for blob in blobs:
            await target.write_blob(BytesContent(blob), digest_of_bytes(blob), lambda _: None)
        data = canonical_json(manifest)
        document = Document(manifest["mediaType"], digest_of_bytes(data), data)
        await target.write_manifest(document, "")
    return f"{host}/{repository}@{document.digest}"


def failed(results: Sequence[CheckResult]) -> dict[str, str]:
    return {r.name.removeprefix("modelcar-"): r.seen for r in results if r.verdict is Verdict.FAIL}


def skipped(results: Sequence[CheckResult]) -> dict[str, str]:
    return {r.name.removeprefix("modelcar-"): r.seen for r in results if r.verdict is Verdict.SKIP}


async def test_a_handmade_image_that_is_right_passes(registry: str, repository: str, options: RegistryOptions) -> None:
    reference = await put(Handmade(GOOD), registry, repository, options)
    for results in (await verify(reference, options=options), await verify_content(reference, options=options)):
        assert failed(results) == {}
        assert set(skipped(results)) == {"annotations", "sbom", "provenance"}
        assert all(result.expected for result in results)


def changed(name: str, data: bytes) -> tuple[Entry, ...]:
    return tuple(Entry(e.name, data, e.mode) if e.name == f"models/{name}" else e for e in GOOD)


def with_labels(annotations: dict[str, str]) -> Handmade:
    return Handmade(GOOD, config={"config": {"Labels": annotations}}, annotations=annotations)


@pytest.mark.parametrize(
    ("image", "check", "message"),
    [
        (Handmade(GOOD, config={"config": {"Entrypoint": ["/x"]}}), "config", "Entrypoint"),
        (Handmade(GOOD, diff_ids=[]), "config", "0 diff_ids for 1 layers"),
        (Handmade(GOOD, diff_ids=["sha256:" + 64 * "0"]), "config", "has diff_id"),
        (Handmade([]), "members", "no file under models/"),
        (Handmade([MODELS]), "members", "no file under models/"),
        (Handmade([Entry("./models/config.json", b"{}")]), "members", "no file under models/"),
        (Handmade([*GOOD, Entry("models/x", mode=0o600)]), "members", "not readable by any user: 'models/x'"),
        (Handmade([*GOOD, Entry("models/d", mode=0o700, kind=tarfile.DIRTYPE)]), "members", "'models/d'"),
        (Handmade([*GOOD, Entry("models/x", kind=tarfile.FIFOTYPE)]), "members", "neither files"),
        (Handmade([*GOOD, Entry("models/x", kind=tarfile.SYMTYPE, link="/etc/passwd")]), "members", "neither files"),
        (Handmade([*GOOD, Entry("models/x", kind=tarfile.SYMTYPE, link="../../etc")]), "members", "neither files"),
        (Handmade([*GOOD, Entry("models/x", kind=tarfile.LNKTYPE, link="etc/passwd")]), "members", "neither files"),
        (Handmade([*GOOD, Entry("models/../etc/passwd")]), "members", "neither files"),
        (Handmade(GOOD, pack=lambda tar: tar[:700]), "members", "cannot be listed"),
        (Handmade(GOOD, pack=lambda _: b"x" * 2048), "members", "not a tar"),
        (Handmade(changed("model.safetensors", SHARD[:-1])), "safetensors", "past the end"),
        (Handmade(changed("model.safetensors", b"\xff" * 64)), "safetensors", "the header claims"),
        (Handmade(changed("model.safetensors", b"")), "safetensors", "the file has 0 bytes"),
        (Handmade(changed("config.json", b"[")), "weight-maps", "not JSON"),
        (Handmade(changed("model.safetensors.index.json", b"{}")), "weight-maps", "no weight_map"),
        (
            Handmade(changed("model.safetensors.index.json", b'{"weight_map": {"b": "model.safetensors"}}')),
            "weight-maps",
            "a tensor that its shard lacks",
        ),
        (
            Handmade(changed("model.safetensors.index.json", b'{"weight_map": {"a": "other.safetensors"}}')),
            "weight-maps",
            "a shard that is missing",
        ),
        (with_labels({"io.servepath.model.parameters": "5"}), "annotations", "parameters 4, annotated 5"),
        (with_labels({"io.servepath.model.dtype": "F32"}), "annotations", "dtype BF16, annotated F32"),
        (Handmade(GOOD, annotations={"io.servepath.model.name": "x"}), "annotations", "not the label"),
        (Handmade(GOOD, f"{TAR}+lzma"), "members", "unknown media type"),
        (Handmade(GOOD, f"{TAR}+gzip"), "members", "incorrect header check"),
        (Handmade(GOOD, f"{TAR}+zstd"), "members", "zstd"),
    ],
)
async def test_what_is_wrong_is_found(
    registry: str, repository: str, options: RegistryOptions, image: Handmade, check: str, message: str
) -> None:
    reference = await put(image, registry, repository, options)
    results = await verify(reference, options=options)
    assert message in failed(results)[check]
    assert all(result.next_command for result in results if result.verdict is Verdict.FAIL)
    assert message in failed(await verify_content(reference, options=options))[check]


@pytest.mark.parametrize(
    ("media_type", "pack"),
    [
        (f"{TAR}+gzip", gzip.compress),
        (f"{TAR}+gzip", lambda tar: gzip.compress(tar[:1000]) + gzip.compress(tar[1000:])),
        (f"{TAR}+zstd", zstandard.ZstdCompressor().compress),
        (
            f"{TAR}+zstd",
            lambda tar: b"".join(zstandard.ZstdCompressor().compress(part) for part in (tar[:999], tar[999:])),
        ),
    ],
    ids=["gzip", "gzip of two members", "zstd", "zstd of two frames"],
)
async def test_compressed_layers_are_read_whole_if_they_are_small_or_asked_for(
    registry: str,
    repository: str,
    options: RegistryOptions,
    monkeypatch: pytest.MonkeyPatch,
    media_type: str,
    pack: Callable[[bytes], bytes],
) -> None:
    reference = await put(Handmade(GOOD, media_type, pack), registry, repository, options)
    assert failed(await verify(reference, options=options)) == {}
    monkeypatch.setattr(examine, "SMALL_BYTES", 0)
    results = await verify(reference, options=options)
    assert failed(results) == {}
    assert "a part of a compressed layer cannot be read alone" in skipped(results)["members"]
    assert "safetensors" in skipped(results)
    whole = await verify_content(reference, options=options)
    assert failed(whole) == {}
    assert not {"members", "safetensors", "content"} & set(skipped(whole))


async def test_a_compressed_layer_with_another_tar_inside_is_found_by_its_diff_id(
    registry: str, repository: str, options: RegistryOptions
) -> None:
    wrong = Handmade(GOOD, f"{TAR}+gzip", gzip.compress, diff_ids=[digest_of_bytes(b"another")])
    reference = await put(wrong, registry, repository, options)
    assert "unpacks to" in failed(await verify_content(reference, options=options))["content"]


_MEASURED = """
import anyio, resource, sys
from servepath.modelcar.verify import verify_content
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
async def main():
    before = peak_mib()
    results = await verify_content(sys.argv[1])
    print(peak_mib() - before)
    print([result.seen for result in results if result.name == "modelcar-content"])
anyio.run(main)
"""


async def test_a_layer_that_expands_without_end_takes_bounded_memory(
    registry: str, repository: str, options: RegistryOptions
) -> None:
    """1 GiB of zeros behind the tar, in 32 KiB: every byte is read, none is kept."""
    compressor = zstandard.ZstdCompressor().compressobj()
    packed = compressor.compress(tar_of(GOOD)) + b"".join(compressor.compress(bytes(MIB)) for _ in range(1024))
    packed += compressor.flush()
    reference = await put(Handmade(GOOD, f"{TAR}+zstd", lambda _: packed), registry, repository, options)
    measured = await anyio.run_process([sys.executable, "-c", _MEASURED, reference])
    grown_mib, seen = measured.stdout.decode().splitlines()
    assert float(grown_mib) < 128
    assert "unpacks to" in seen


async def test_later_layers_win_and_whiteouts_delete(registry: str, repository: str, options: RegistryOptions) -> None:
    first = tar_of([*GOOD, Entry("models/old/x.safetensors", b"broken"), Entry("models/gone.safetensors", b"broken")])
    second = tar_of([Entry("models/old/.wh..wh..opq"), Entry("models/.wh.gone.safetensors")])
    layers = [Descriptor(TAR, digest_of_bytes(tar), len(tar)) for tar in (first, second)]
    config = canonical_json(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [x.digest for x in layers]}}
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(CONFIG, digest_of_bytes(config), len(config)).to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    reference = await put_documents(registry, repository, options, [first, second, config], manifest)
    results = await verify(reference, options=options)
    assert failed(results) == {}
    seen = {r.name: r.seen for r in results}
    assert seen["modelcar-safetensors"].startswith("1 files")


async def index_over(
    references: dict[str, str],
    host: str,
    repository: str,
    options: RegistryOptions,
    extra: Sequence[dict[str, Any]] = (),
) -> str:
    entries = list(extra)
    async with open_registry(host, options) as client:
        target = Repository(client, repository)
        for platform, reference in references.items():
            document = await target.read_manifest(reference.partition("@")[2])
            system, _, architecture = platform.partition("/")
            descriptor = Descriptor(MANIFEST, document.digest, len(document.data)).to_json()
            entries.append(descriptor | {"platform": {"os": system, "architecture": architecture}})
    return await put_documents(
        host, repository, options, [], {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    )


async def test_every_platform_of_an_index_is_checked(registry: str, repository: str, options: RegistryOptions) -> None:
    amd = await put(Handmade(GOOD), registry, repository, options)
    arm = await put(Handmade(GOOD, config={"architecture": "arm64"}), registry, repository, options)
    index = await index_over({"linux/amd64": amd, "linux/arm64": arm}, registry, repository, options)
    results = await verify(index, options=options)
    assert failed(results) == {}
    assert {r.subject for r in results} == {"modelcar", "linux/amd64", "linux/arm64"}
    assert next(r.seen for r in results if r.name == "modelcar-index") == "linux/amd64, linux/arm64"


async def test_a_platform_that_is_not_what_the_index_says_is_found(
    registry: str, repository: str, options: RegistryOptions
) -> None:
    amd = await put(Handmade(GOOD), registry, repository, options)
    index = await index_over({"linux/arm64": amd}, registry, repository, options)
    assert "the index says linux/arm64" in failed(await verify(index, options=options))["config"]


async def test_an_index_whose_image_is_gone_is_found(faults: Faults, repository: str, options: RegistryOptions) -> None:
    amd = await put(Handmade(GOOD), faults.host, repository, options)
    arm = await put(Handmade(GOOD, config={"architecture": "arm64"}), faults.host, repository, options)
    index = await index_over({"linux/amd64": amd, "linux/arm64": arm}, faults.host, repository, options)
    faults.rules = [Rule("GET", f"manifests/{arm.partition('@')[2]}", times=9, status=404)]
    results = await verify(index, options=options)
    assert "linux/arm64: " in failed(results)["index"]
    assert "linux/amd64" in {r.subject for r in results}
    with pytest.raises(RegistryError, match="404"):
        await verify(f"{faults.host}/{repository}@sha256:{64 * 'a'}", options=options)


async def attach_document(reference: str, kind: str, document: dict[str, Any], options: RegistryOptions) -> None:
    host, _, rest = reference.partition("/")
    repository, _, digest = rest.partition("@")
    async with open_registry(host, options) as client:
        target = Repository(client, repository)
        subject = await target.read_manifest(digest)
        descriptor = Descriptor(subject.media_type, subject.digest, len(subject.data))
        await write_attachment(target, make_attachment(descriptor, kind, canonical_json(document), {}))


def package(key: str, digest: str, purpose: str = "CONTAINER") -> dict[str, Any]:
    checksums = [{"algorithm": "SHA256", "checksumValue": digest.removeprefix("sha256:")}]
    return {"SPDXID": key, "primaryPackagePurpose": purpose, "checksums": checksums}


async def test_attachments_that_are_right_pass_and_can_be_required(
    registry: str, repository: str, options: RegistryOptions
) -> None:
    reference = await put(Handmade(GOOD), registry, repository, options)
    digest = reference.partition("@")[2]
    missing = await verify(reference, required=frozenset({SBOM, PROVENANCE}), options=options)
    assert set(failed(missing)) == {"sbom", "provenance"}
    packages = [
        package("SPDXRef-Image", digest),
        package("SPDXRef-Layer-1", digest_of_bytes(tar_of(GOOD)), "ARCHIVE"),
    ]
    await attach_document(reference, SBOM, {"spdxVersion": "SPDX-2.3", "packages": packages}, options)
    subject = [{"name": "x", "digest": {"sha256": digest.removeprefix("sha256:")}}]
    statement = {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": "p"}
    await attach_document(reference, PROVENANCE, statement, options)
    results = await verify(reference, required=frozenset({SBOM, PROVENANCE}), options=options)
    assert failed(results) == {}
    assert not {"sbom", "provenance"} & set(skipped(results))


ZEROS = "sha256:" + 64 * "0"


@pytest.mark.parametrize(
    ("kind", "document", "message"),
    [
        (SBOM, {}, "spdxVersion"),
        (SBOM, {"spdxVersion": "SPDX-2.3", "packages": [package("SPDXRef-Image", ZEROS)]}, "the SBOM is of"),
        (
            SBOM,
            {"spdxVersion": "SPDX-2.3", "packages": [package("x", ZEROS, "ARCHIVE")]},
            "layers that the image lacks",
        ),
        (PROVENANCE, {}, "_type"),
        (PROVENANCE, {"_type": "https://in-toto.io/Statement/v1"}, "the statement is of nothing"),
        (
            PROVENANCE,
            {"_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": 64 * "0"}}, 1]},
            "the statement is of sha256:000",
        ),
    ],
)
async def test_attachments_of_something_else_are_found(
    registry: str, repository: str, options: RegistryOptions, kind: str, document: dict[str, Any], message: str
) -> None:
    reference = await put(Handmade(GOOD), registry, repository, options)
    await attach_document(reference, kind, document, options)
    assert message in failed(await verify(reference, options=options))["sbom" if kind == SBOM else "provenance"]


async def test_an_attachment_that_refers_to_another_image_is_found(
    registry: str, repository: str, options: RegistryOptions
) -> None:
    """A registry without the referrers API keeps a list that any client can write."""
    reference = await put(Handmade(GOOD), registry, repository, options)
    digest = reference.partition("@")[2]
    other = Descriptor(MANIFEST, ZEROS, 7)
    attachment = make_attachment(other, SBOM, b'{"spdxVersion": "SPDX-2.3"}', {})
    async with open_registry(registry, options) as client:
        target = Repository(client, repository)
        await write_attachment(target, attachment)
        data = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [attachment.referrer.to_json()]})
        await target.write_manifest(Document(INDEX, digest_of_bytes(data), data), digest.replace(":", "-"))
    assert f"refers to {ZEROS}" in failed(await verify(reference, options=options))["sbom"]


async def test_a_model_that_servepath_made_passes_with_its_annotations(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    pushed = await build_and_push(
        open_source(write_model(tmp_path / "m", [8, 16])), base, registry, repository, options=options
    )
    results = {r.name: r for r in await verify(pushed.reference, options=options)}
    assert results["modelcar-annotations"].verdict is Verdict.PASS
    assert "parameters 24" in results["modelcar-annotations"].seen
    assert results["modelcar-weight-maps"].seen == "2 tensors in 2 files"


async def test_verify_reads_kilobytes_of_a_model(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    pushed = await build_and_push(
        open_source(write_model(model, [5 * MIB, 5 * MIB])), base, faults.host, repository, options=options
    )
    faults.sent_bytes = 0
    assert failed(await verify(pushed.reference, options=options)) == {}
    assert faults.sent_bytes < MIB


async def test_a_reference_by_tag_is_refused(registry: str, options: RegistryOptions) -> None:
    with pytest.raises(InputError, match="named by tag"):
        await verify(f"{registry}/a/b:v1", options=options)
