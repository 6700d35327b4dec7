"""Traps that only show in other programs: what KServe's fetcher wants, what containerd cannot mount."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import httpx
import pytest

from servepath.modelcar.attach.referrers import MODELPACK
from tests.interop.forms import LONG_NAME, output
from tests.interop.raw import get_manifest
from tests.interop.tools import pull

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.forms import Shipped

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def test_layers_are_oci_tars_whose_members_are_named_from_the_root(shipped: Shipped) -> None:
    """KServe 0.20's `oci+fetch` takes OCI media types without zstd, and members `models/…`, not `./models/…`.

    https://github.com/kserve/kserve/releases/tag/v0.20.0
    """
    manifest = get_manifest(shipped.registry, shipped.repository, shipped.digest)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    base, *model = manifest["layers"]
    assert base["mediaType"] == f"{OCI_LAYER}+gzip"
    assert {layer["mediaType"] for layer in model} == {OCI_LAYER + ("+zstd" if shipped.form == "zstd" else "")}
    if shipped.form == "zstd":
        return
    names: list[str] = []
    for layer in model:
        blob = httpx.get(f"http://{shipped.registry}/v2/{shipped.repository}/blobs/{layer['digest']}")
        with tarfile.open(fileobj=io.BytesIO(blob.content)) as archive:
            names += archive.getnames()
    assert {name.partition("/")[0] for name in names} == {"models"}
    assert f"models/{LONG_NAME}" in names  # over 100 bytes: a PAX record
    assert "models/größe.txt" in names
    assert "models/LICENSE" in names


def test_containerd_finds_no_image_for_an_architecture_that_an_index_lacks(containerd: Path, shipped: Shipped) -> None:
    if shipped.form != "index":
        pytest.skip("of an index only: one manifest is taken on every machine")
    for architecture in ("amd64", "arm64"):
        pull(containerd, shipped.reference, f"--platform=linux/{architecture}", namespace=architecture)
    with pytest.raises(AssertionError, match=r"no match for platform|not found"):
        pull(containerd, shipped.reference, "--platform=linux/s390x", namespace="s390x")


def test_containerd_mounts_the_image_and_not_the_modelpack_manifest_beside_it(
    containerd: Path, oras: Path, shipped: Shipped
) -> None:
    if shipped.form != "attested":
        pytest.skip("no ModelPack manifest was asked for")
    said = json.loads(output([oras, "discover", "--plain-http", "--format", "json", shipped.reference]))
    (modelpack,) = [entry["digest"] for entry in said["referrers"] if entry["artifactType"] == MODELPACK]
    pull(containerd, shipped.reference, namespace="beside")
    with pytest.raises(AssertionError):
        pull(containerd, f"{shipped.registry}/{shipped.repository}@{modelpack}", namespace="modelpack")
