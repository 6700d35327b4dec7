"""skopeo, crane, umoci and oras accept the image, and what they unpack is the model, bit by bit."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from servepath.modelcar.attach.referrers import MODELPACK, PROVENANCE, SBOM
from servepath.modelcar.build import build_layout
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.source.directory import open_source
from tests.interop.forms import digests_below, hidden_from, output
from tests.interop.raw import get_manifest, put_with_wrong_config_size
from tests.unit.modelcar.registries import running_crane_registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.forms import Shipped

KSERVE_UID = 1010


def copied_to_layout(skopeo: Path, shipped: Shipped, layout: Path, *flags: str) -> None:
    source = f"docker://{shipped.reference}"
    output([skopeo, "copy", "--preserve-digests", *flags, "--src-tls-verify=false", source, f"oci:{layout}:v1"])


def test_skopeo_inspects_it(skopeo: Path, shipped: Shipped) -> None:
    seen = json.loads(output([skopeo, "inspect", "--tls-verify=false", f"docker://{shipped.reference}"]))
    assert seen["Digest"] == shipped.digest
    assert seen["Architecture"] == "amd64"
    assert seen["Labels"]["io.servepath.model.name"] == "Tiny-Llama"


def test_skopeo_copies_it_to_a_layout_and_to_another_registry_under_its_digest(
    skopeo: Path, shipped: Shipped, crane_registry: str, tmp_path: Path
) -> None:
    copied_to_layout(skopeo, shipped, tmp_path / "layout", "--all")
    index = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    assert [entry["digest"] for entry in index["manifests"]] == [shipped.digest]
    target = f"docker://{crane_registry}/skopeo/{shipped.form}"
    flags = ["--preserve-digests", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
    output([skopeo, "copy", *flags, f"docker://{shipped.reference}", f"{target}:v1"])
    raw = output([skopeo, "inspect", "--raw", "--tls-verify=false", f"{target}@{shipped.digest}"])
    assert raw == output([skopeo, "inspect", "--raw", "--tls-verify=false", f"docker://{shipped.reference}"])


def test_a_plain_skopeo_copy_gzips_the_layers_and_crane_validates_what_it_made_in_full(
    skopeo: Path, crane: Path, shipped: Shipped, tmp_path: Path
) -> None:
    """Why `servepath copy` is there: without --preserve-digests another image arrives, of the same unpacked layers."""
    if shipped.form == "zstd":
        pytest.skip("skopeo leaves zstd layers as they are")
    copied_to_layout(skopeo, shipped, tmp_path / "layout")
    with running_crane_registry(crane, tmp_path) as fresh:  # what skopeo finds there it does not compress
        target = f"{fresh}/lossy"
        output([skopeo, "copy", "--dest-tls-verify=false", f"oci:{tmp_path / 'layout'}:v1", f"docker://{target}:v1"])
        assert "PASS" in output([crane, "validate", "--remote", f"{target}:v1"])
        lossy = json.loads(output([crane, "manifest", f"{target}:v1"]))
        assert output([crane, "digest", f"{target}:v1"]).strip() != shipped.digest
    kept = get_manifest(shipped.registry, shipped.repository, shipped.digest)
    assert lossy["config"]["digest"] == kept["config"]["digest"]
    assert {layer["mediaType"].rpartition("+")[2] for layer in lossy["layers"]} == {"gzip"}


def test_crane_validates_its_manifest_and_config(crane: Path, shipped: Shipped) -> None:
    assert "PASS" in output([crane, "validate", "--fast", "--remote", shipped.reference])


def test_crane_validate_in_full_knows_gzip_alone(crane: Path, shipped: Shipped, base: str) -> None:
    """It passes every layer through gzip, whatever its media type says; `crane export`, below, reads them as they are.

    https://github.com/google/go-containerregistry/issues/1826
    """
    assert "PASS" in output([crane, "validate", "--remote", base])
    with pytest.raises(AssertionError, match="gzip: invalid header"):
        output([crane, "validate", "--remote", shipped.reference])


def test_crane_exports_the_model_bit_by_bit(crane: Path, shipped: Shipped, tmp_path: Path) -> None:
    """An export reads every layer of the image and checks its digest on the way."""
    output([crane, "export", "--platform=linux/amd64", shipped.reference, tmp_path / "image.tar"])
    with tarfile.open(tmp_path / "image.tar") as archive:
        members = {member.name: member for member in archive if member.isfile() and member.name.startswith("models/")}
        seen = {name: archive.extractfile(member) for name, member in members.items()}
        digests = {name.removeprefix("models/"): hashlib.sha256(f.read()).hexdigest() for name, f in seen.items() if f}
    assert digests == shipped.files


def test_crane_validate_finds_a_wrong_size(crane: Path, shipped: Shipped) -> None:
    digest = put_with_wrong_config_size(shipped.registry, shipped.repository, shipped.digest)
    with pytest.raises(AssertionError, match=r"validating config: .*does not match expected size"):
        output([crane, "validate", "--fast", "--remote", f"{shipped.registry}/{shipped.repository}@{digest}"])


@pytest.mark.usefixtures("root")
def test_umoci_unpacks_the_model_bit_by_bit_and_readable_by_kserves_user(
    skopeo: Path, umoci: Path, shipped: Shipped, tmp_path: Path
) -> None:
    copied_to_layout(skopeo, shipped, tmp_path / "layout")
    output([umoci, "unpack", "--image", f"{tmp_path / 'layout'}:v1", tmp_path / "bundle"])
    models = tmp_path / "bundle" / "rootfs" / "models"
    assert digests_below(models) == shipped.files
    assert hidden_from(models, KSERVE_UID) == []


def test_oras_reads_its_manifest_and_pulls_its_blobs(oras: Path, shipped: Shipped, tmp_path: Path) -> None:
    manifest = output([oras, "manifest", "fetch", "--plain-http", shipped.reference])
    assert json.loads(manifest)["schemaVersion"] == 2
    copied = tmp_path / "layout"
    output([oras, "cp", "--from-plain-http", "--to-oci-layout", shipped.reference, f"{copied}:v1"])
    index = json.loads((copied / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == shipped.digest


@pytest.mark.anyio
async def test_a_layout_is_read_with_what_refers_to_it(
    skopeo: Path, oras: Path, model: Path, base: str, registry: str, tmp_path: Path
) -> None:
    build = BuildOptions(attest=True, modelpack=True)
    layout, target = tmp_path / "layout", f"{registry}/interop/from-layout"
    written = await build_layout(open_source(model), base, layout, tag="v1", build=build)
    said = json.loads(output([oras, "discover", "--oci-layout", "--format", "json", f"{layout}@{written.digest}"]))
    assert {entry["artifactType"]: entry["digest"] for entry in said["referrers"]} == written.referrers
    output([oras, "cp", "--recursive", "--from-oci-layout", "--to-plain-http", f"{layout}:v1", f"{target}:v1"])
    said = json.loads(output([oras, "discover", "--plain-http", "--format", "json", f"{target}@{written.digest}"]))
    assert {entry["artifactType"]: entry["digest"] for entry in said["referrers"]} == written.referrers
    output(
        [skopeo, "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{target}-2:v1"]
    )
    with pytest.raises(AssertionError, match="more than one image"):  # skopeo knows no referrers in a layout
        output([skopeo, "inspect", f"oci:{layout}"])


def test_oras_discovers_what_refers_to_it(oras: Path, shipped: Shipped, tmp_path: Path) -> None:
    said = output([oras, "discover", "--plain-http", "--format", "json", shipped.reference])
    referrers = {entry["artifactType"]: entry["digest"] for entry in json.loads(said).get("referrers") or ()}
    if shipped.form != "attested":
        assert referrers == {}
        return
    assert set(referrers) == {SBOM, PROVENANCE, MODELPACK}
    repository = f"{shipped.registry}/{shipped.repository}"
    for kind in (SBOM, PROVENANCE):
        manifest = json.loads(output([oras, "manifest", "fetch", "--plain-http", f"{repository}@{referrers[kind]}"]))
        assert manifest["subject"]["digest"] == shipped.digest
        blob = f"{repository}@{manifest['layers'][0]['digest']}"
        output([oras, "blob", "fetch", "--plain-http", "--output", tmp_path / "document", blob])
        assert isinstance(json.loads((tmp_path / "document").read_bytes()), dict)
