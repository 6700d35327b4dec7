"""SBOM, provenance and ModelPack manifest: what they say, that tools of others read them, that they never change."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from modelpack_client import ModelPackClient  # type: ignore[import-untyped]
from spdx_tools.spdx.model.relationship import RelationshipType
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

import servepath
from servepath.errors import RegistryError
from servepath.evidence import Verdict
from servepath.modelcar.attach.attachments import MAKERS
from servepath.modelcar.attach.facts import ModelcarFacts
from servepath.modelcar.attach.modelpack import parameter_size
from servepath.modelcar.attach.referrers import MODELPACK, PROVENANCE, SBOM, list_referrers, subject_of
from servepath.modelcar.build import build_and_push, build_layout, open_bases, write_modelcar
from servepath.modelcar.copy import copy
from servepath.modelcar.image.compress import Compression
from servepath.modelcar.image.oci import manifest_descriptor, read_all
from servepath.modelcar.layout import Layout
from servepath.modelcar.plan import BuildOptions, plan_modelcar
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import INDEX, descriptor_of
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.faults import Faults, Rule
from tests.unit.modelcar.helpers import MIB, write_model
from tests.unit.modelcar.test_modelcar_forms import FORMS, GOLDEN, write_base_index

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.modelcar.model import Modelcar, ModelSource

pytestmark = pytest.mark.anyio
ALL = BuildOptions(attest=True, modelpack=True, own_layer_bytes=MIB)
REVISION = "1" * 40


def source_of(directory: Path) -> ModelSource:
    write_model(directory, [MIB, 32])
    return replace(open_source(directory), origin="example/Tiny-Llama", revision=REVISION)


async def attached(
    host: str, repository: str, modelcar: Modelcar, kind: str, options: RegistryOptions
) -> tuple[dict[str, Any], bytes]:
    """Read the manifest of one kind that refers to the image, and its file or config."""
    async with open_registry(host, options) as client:
        target = Repository(client, repository)
        [entry] = [e for e in await list_referrers(target, modelcar.digest) if e.artifact_type == kind]
        assert entry.descriptor.digest == modelcar.referrers[kind]
        document = await target.read_manifest(entry.descriptor.digest)
        assert subject_of(document) == modelcar.digest
        blob = document.json["config" if kind == MODELPACK else "layers"]
        blob = blob if kind == MODELPACK else blob[0]
        return document.json, await read_all(target, descriptor_of(blob, kind))


async def test_the_sbom_is_valid_and_names_every_file(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    source = source_of(tmp_path / "model")
    modelcar = await build_and_push(source, base, registry, repository, build=ALL, options=options)
    manifest, data = await attached(registry, repository, modelcar, SBOM, options)
    assert manifest["artifactType"] == SBOM
    path = tmp_path / "sbom.spdx.json"
    path.write_bytes(data)
    document = parse_file(str(path))
    assert validate_full_spdx_document(document) == []
    packages = {package.spdx_id: package for package in document.packages}
    assert packages["SPDXRef-Image"].checksums[0].value == modelcar.digest.removeprefix("sha256:")
    assert packages["SPDXRef-Base"].checksums[0].value == base.rpartition("sha256:")[2]
    assert packages["SPDXRef-Model"].version == REVISION
    assert str(packages["SPDXRef-Model"].license_declared) == "Apache-2.0"
    layers = [layer for layer in modelcar.layers if layer.members]
    assert [packages[f"SPDXRef-Layer-{n}"].checksums[0].value for n, _ in enumerate(layers, 1)] == [
        layer.digest.removeprefix("sha256:") for layer in layers
    ]
    small = {file.name: {sum_.value for sum_ in file.checksums} for file in document.files}
    assert set(small) == {f"./{name}" for name in layers[-1].members}
    config = (source.directory / "config.json").read_bytes()
    assert hashlib.sha256(config).hexdigest() in small["./models/config.json"]
    assert any(relation.relationship_type is RelationshipType.DESCRIBES for relation in document.relationships)


async def test_the_provenance_says_what_came_from_what(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    source = source_of(tmp_path / "model")
    modelcar = await build_and_push(source, base, registry, repository, build=ALL, options=options)
    manifest, data = await attached(registry, repository, modelcar, PROVENANCE, options)
    assert manifest["annotations"]["in-toto.io/predicate-type"] == "https://slsa.dev/provenance/v1"
    statement = json.loads(data)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"][0]["digest"]["sha256"] == modelcar.digest.removeprefix("sha256:")
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["ownLayerBytes"] == MIB
    digests = [dependency["digest"] for dependency in definition["resolvedDependencies"]]
    assert digests == [{"gitCommit": REVISION}, {"sha256": base.rpartition("sha256:")[2]}]
    assert "/tmp" not in data.decode()  # noqa: S108 - nothing of this machine


@pytest.mark.parametrize("compression", list(Compression))
async def test_the_modelpack_manifest_shares_the_images_layers(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions, compression: Compression
) -> None:
    build = replace(ALL, compression=compression)
    source = source_of(tmp_path / "model")
    modelcar = await build_and_push(source, base, registry, f"{repository}-{compression}", build=build, options=options)
    manifest, data = await attached(registry, f"{repository}-{compression}", modelcar, MODELPACK, options)
    suffix = "" if compression is Compression.NONE else "+zstd"
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        f"application/vnd.cncf.model.weight.v1.tar{suffix}",
        f"application/vnd.cncf.model.weight.config.v1.tar{suffix}",
    ]
    assert [layer["digest"] for layer in manifest["layers"]] == [la.digest for la in modelcar.layers if la.members]
    config = json.loads(data)
    assert config["descriptor"]["licenses"] == ["Apache-2.0"]
    assert config["config"] == {"format": "safetensors", "paramSize": "1M", "precision": "bfloat16"}
    assert len(config["modelfs"]["diffIds"]) == 2
    if compression is Compression.NONE:
        assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]


@pytest.mark.parametrize("compression", list(Compression))
async def test_a_modelpack_client_gets_the_model(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions, compression: Compression
) -> None:
    source = source_of(tmp_path / "model")
    build = replace(ALL, compression=compression)
    modelcar = await build_and_push(source, base, registry, f"{repository}-{compression}", build=build, options=options)
    reference = f"{registry}/{repository}-{compression}@{modelcar.referrers[MODELPACK]}"
    pulled = await to_thread.run_sync(ModelPackClient(insecure=True).pull, reference, tmp_path / "pulled")
    assert {path.name for path in pulled.files} == set(source.files)
    assert all(path.read_bytes() == (source.directory / path.name).read_bytes() for path in pulled.files)


@pytest.mark.parametrize(
    ("said", "method"), [({"quant_method": "awq"}, "awq"), ({"quant_method": ["x"]}, ""), ("none", ""), ({}, "")]
)
async def test_the_quantization_is_said(
    tmp_path: Path, base: str, options: RegistryOptions, said: object, method: str
) -> None:
    directory = write_model(tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    modelcar = await build_layout(open_source(directory), base, tmp_path / "out", options=options)
    assert modelcar.annotations.get("io.servepath.model.quantization", "") == method


async def test_they_refer_to_the_index_where_there_is_one(
    tmp_path: Path, registry: str, repository: str, options: RegistryOptions
) -> None:
    base = await write_base_index(tmp_path)
    build = replace(ALL, platforms=("linux/amd64", "linux/arm64"))
    source = source_of(tmp_path / "model")
    modelcar = await build_and_push(source, base, registry, repository, build=build, options=options)
    for kind in (SBOM, PROVENANCE, MODELPACK):
        manifest, _ = await attached(registry, repository, modelcar, kind, options)
        assert manifest["subject"]["mediaType"] == INDEX
        assert manifest["subject"]["digest"] == modelcar.digest


async def test_a_second_push_only_looks(
    tmp_path: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    source = source_of(tmp_path / "model")
    first = await build_and_push(source, base, faults.host, repository, build=ALL, options=options)
    faults.seen.clear()
    second = await build_and_push(source, base, faults.host, repository, build=ALL, options=options)
    assert (second.sent_bytes, second.referrers) == (0, first.referrers)
    assert set(second.referrers) == {SBOM, PROVENANCE, MODELPACK}
    assert faults.count("POST", "blobs/uploads") == 0
    assert faults.count("PUT", "manifests/") <= 1


async def test_nothing_is_attached_unless_asked_for(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    modelcar = await build_and_push(open_source(model), base, registry, repository, options=options)
    assert modelcar.referrers == {}
    async with open_registry(registry, options) as client:
        assert await list_referrers(Repository(client, repository), modelcar.digest) == ()


async def test_a_registry_that_takes_no_artifacts_is_told_apart(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    plain = await build_and_push(open_source(model), base, faults.host, repository, options=options)
    faults.rules.append(Rule("PUT", f"manifests/(?!{plain.digest})", times=9, status=400))
    with pytest.raises(RegistryError, match="the image is pushed") as caught:
        await build_and_push(
            open_source(model), base, faults.host, repository, build=BuildOptions(attest=True), options=options
        )
    assert "--no-attest" in caught.value.next_command


async def test_a_layout_takes_the_same_attachments_and_hands_them_on(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    source, layout = source_of(tmp_path / "model"), tmp_path / "out"
    written = await build_layout(source, base, layout, build=ALL, options=options)
    assert set(written.referrers) == {SBOM, PROVENANCE, MODELPACK}
    listed = {entry["digest"]: entry.get("artifactType") for entry in Layout(layout).entries()}
    assert listed == {written.digest: None} | {digest: kind for kind, digest in written.referrers.items()}
    assert Layout(layout).only_digest() == written.digest
    again = await build_layout(source, base, layout, build=ALL, options=options)
    assert (again.referrers, again.sent_bytes) == (written.referrers, 0)

    copied = await copy(f"oci:{layout}", registry, repository, options=options)
    assert copied.digest == written.digest
    assert set(copied.referrers) == set(written.referrers.values())
    required = frozenset({SBOM, PROVENANCE})
    results = await verify_content(copied.reference, required=required, options=options)
    assert [result for result in results if result.verdict is Verdict.FAIL] == []
    pushed = await build_and_push(source, base, registry, f"{repository}-pushed", build=ALL, options=options)
    assert (pushed.digest, pushed.referrers) == (written.digest, written.referrers)


async def test_another_version_attaches_its_own(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = BuildOptions(attest=True)
    first = await build_and_push(open_source(model), base, registry, repository, build=build, options=options)
    monkeypatch.setattr(servepath, "__version__", "99")
    second = await build_and_push(open_source(model), base, registry, repository, build=build, options=options)
    assert first.digest == second.digest
    assert first.referrers[SBOM] != second.referrers[SBOM]


@pytest.mark.parametrize(
    ("count", "text"),
    [(494_032_768, "494M"), (134_515_008, "134.5M"), (6_738_415_616, "6.7B"), (64, "0.1K"), (1_000_000_000_000, "1T")],
)
def test_parameter_counts_are_written_as_the_specification_has_them(count: int, text: str) -> None:
    assert parameter_size(count) == text


@pytest.mark.parametrize("form", ["plain", "all"])
async def test_the_golden_digests_hold(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As version 0 makes them, so that a release alone changes none."""
    monkeypatch.setattr(servepath, "__version__", "0")
    base = await write_base_index(tmp_path)
    source = open_source(write_model(tmp_path / "model", [64, 32, 300]))
    build = FORMS[form]
    options = RegistryOptions()
    async with open_bases(base, options, build.platforms) as bases:
        plan = plan_modelcar(source, bases, build)
        written = await write_modelcar(Layout(tmp_path / "out"), plan)
    subject = manifest_descriptor(written.document)
    facts = ModelcarFacts(source, plan, build, written.layers, subject)
    assert {kind: make(facts).document.digest for kind, make in MAKERS.items()} == GOLDEN[form]["attachments"]
