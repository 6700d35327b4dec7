from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import InputError
from servepath.modelcar.build import build_layout
from servepath.modelcar.content import BytesContent, digest_of, digest_of_bytes
from servepath.modelcar.copy import copy_image
from servepath.modelcar.image.layers import plan_layer
from servepath.modelcar.layout import Layout
from servepath.modelcar.plan import BuildOptions, source_date_epoch
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import DOCKER_LIST, DOCKER_MANIFEST, Document, canonical_json

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


async def write_docker_base(directory: Path) -> tuple[str, str, str]:
    """Write a base as Docker Hub has them, gzip layers below an index; return name, layer digest, diff_id."""
    layout = Layout(directory / "layout")
    (directory / "sh").write_text("#!not really")
    plan = plan_layer({"bin/sh": directory / "sh"}, executables=["bin/sh"])
    tar = b"".join([chunk async for chunk in plan.open(lambda _: None)])
    layer = gzip.compress(tar, mtime=0)
    platforms: list[dict[str, Any]] = []
    for architecture in ("arm64", "amd64"):
        config = canonical_json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": ["/entry"], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": [await digest_of(plan)]},
                "history": [{"created_by": "base"}],
            }
        )
        descriptors = []
        for media_type, data in (("application/vnd.docker.container.image.v1+json", config), (GZIP, layer)):
            digest = (await layout.write_blob(BytesContent(data), "", lambda _: None)).digest
            descriptors.append({"mediaType": media_type, "digest": digest, "size": len(data)})
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptors[0],
            "layers": descriptors[1:],
        }
        data = canonical_json(manifest)
        await layout.write_manifest(Document(DOCKER_MANIFEST, digest_of_bytes(data), data), "")
        entry = {"mediaType": DOCKER_MANIFEST, "digest": digest_of_bytes(data), "size": len(data)}
        platforms.append(entry | {"platform": {"os": "linux", "architecture": architecture}})
    data = canonical_json({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": platforms})
    await layout.write_manifest(Document(DOCKER_LIST, digest_of_bytes(data), data), "base")
    return f"oci:{layout.directory}@{layout.only_digest()}", digest_of_bytes(layer), digest_of_bytes(tar)


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
async def test_a_compressed_base_below_an_index_is_used(
    model: Path, tmp_path: Path, options: RegistryOptions, architecture: str
) -> None:
    base, layer, diff_id = await write_docker_base(tmp_path)
    build = BuildOptions(platforms=(f"linux/{architecture}",))
    modelcar = await build_layout(open_source(model), base, tmp_path / "out", build=build, options=options)
    assert (modelcar.layers[0].digest, modelcar.layers[0].media_type) == (
        layer,
        "application/vnd.oci.image.layer.v1.tar+gzip",
    )
    layout = Layout(tmp_path / "out")
    manifest = (await layout.read_manifest(modelcar.digest)).json
    config = (tmp_path / "out" / "blobs" / "sha256" / manifest["config"]["digest"][7:]).read_text()
    assert f'"diff_ids":["{diff_id}","{modelcar.layers[1].digest}"]' in config
    assert f'"architecture":"{architecture}"' in config
    assert "Entrypoint" not in config


async def test_a_platform_that_the_base_lacks_is_refused(model: Path, tmp_path: Path, options: RegistryOptions) -> None:
    base, _, _ = await write_docker_base(tmp_path)
    build = BuildOptions(platforms=("linux/s390x",))
    with pytest.raises(InputError, match="no image for the platform") as caught:
        await build_layout(open_source(model), base, tmp_path / "out", build=build, options=options)
    assert "linux/arm64" in caught.value.expected


async def test_an_index_is_copied_whole_and_stands_for_its_images(tmp_path: Path) -> None:
    base, _, _ = await write_docker_base(tmp_path)
    source, target = Layout(tmp_path / "layout"), Layout(tmp_path / "copy")
    copied = await copy_image(source, target, source.only_digest())
    assert copied.digest == base.rpartition("@")[2] == target.only_digest()
    assert (await copy_image(source, target, source.only_digest())).sent_bytes == 0


def test_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert source_date_epoch() == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12")
    assert source_date_epoch() == 12
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InputError, match="not a number"):
        source_date_epoch()
