"""The forms of one model: plain, resharded, compressed, for several platforms. Each has one digest, everywhere."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servepath.errors import InputError, UsageError
from servepath.evidence import Verdict
from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.content import digest_of, digest_of_bytes
from servepath.modelcar.image.compress import ZSTD_MEDIA_TYPE, CompressedLayer, Compression
from servepath.modelcar.image.layers import LayerPlan, plan_layer
from servepath.modelcar.image.oci import BaseImage, ImageMetadata, make_index
from servepath.modelcar.layout import Layout
from servepath.modelcar.plan import BuildOptions, ModelcarPlan, plan_modelcar
from servepath.modelcar.push.write import write_image
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import INDEX, descriptor_of
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.cutting import wire_to
from tests.unit.modelcar.helpers import MIB, safetensors_bytes, write_model

if TYPE_CHECKING:
    from collections.abc import Generator

    from servepath.modelcar.content import Tap
    from servepath.modelcar.model import Modelcar
    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio
GOLDEN = json.loads((Path(__file__).parent / "golden_digests.json").read_text())
"""Digests made on another day. They may change only with the format, on purpose: then say so in the change log."""
IMAGES = {form: {key: digests[key] for key in ("digest", "layers", "diff_ids")} for form, digests in GOLDEN.items()}
SMALL = BuildOptions(own_layer_bytes=64)
FORMS = {
    "plain": SMALL,
    "zstd": replace(SMALL, compression=Compression.ZSTD),
    "resharded": replace(SMALL, reshard_bytes=100),
    "index": replace(SMALL, platforms=("linux/arm64", "linux/amd64")),
    "all": replace(
        SMALL,
        compression=Compression.ZSTD,
        reshard_bytes=100,
        platforms=("linux/amd64", "linux/arm64"),
        created_s=86400,
    ),
}
VARIED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def write_base_index(directory: Path) -> str:
    """Write a base for two platforms, not compressed, so that its digest hangs on no library."""
    layout = Layout(directory / "base")
    (directory / "sh").write_text("#!not really")
    layer = plan_layer({"bin/sh": directory / "sh"}, executables=["bin/sh"])
    images = []
    for architecture in ("amd64", "arm64"):
        nothing = BaseImage(config={"os": "linux", "architecture": architecture})
        written = await write_image(layout, nothing, [layer], ImageMetadata(config={"Cmd": ["sh"]}))
        images.append((written.document, nothing))
    index = make_index(images, {})
    await layout.write_manifest(index, "base")
    return f"oci:{layout.directory}@{index.digest}"


def write_varied(directory: Path, order: Any, umask: int, mtime_s: int) -> Path:
    """Write the golden model with its files made in another order, with other modes and times."""
    template = write_model(directory / "template", [64, 32, 300])
    paths = sorted(template.iterdir())
    order.shuffle(paths)
    target = directory / "some other place"
    old = os.umask(umask)
    try:
        target.mkdir()
        for path in paths:
            (target / path.name).write_bytes(path.read_bytes())
            os.utime(target / path.name, (mtime_s, mtime_s))
    finally:
        os.umask(old)
    return target


async def digests_of(directory: Path, base: str, out: Path, options: RegistryOptions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for form, build in FORMS.items():
        modelcar = await build_layout(open_source(directory), base, out / form, build=build, options=options)
        [manifest, *_] = await manifests_of(Layout(out / form), modelcar)
        config = json.loads(await blob(Layout(out / form), manifest["config"]))
        found[form] = {
            "digest": modelcar.digest,
            "layers": [layer.digest for layer in modelcar.layers if layer.members],
            "diff_ids": config["rootfs"]["diff_ids"][1:],
        }
    return found


async def manifests_of(layout: Layout, modelcar: Modelcar) -> list[dict[str, Any]]:
    document = await layout.read_manifest(modelcar.digest)
    if not document.is_index:
        return [document.json]
    return [(await layout.read_manifest(entry["digest"])).json for entry in document.json["manifests"]]


async def blob(layout: Layout, entry: dict[str, Any]) -> bytes:
    descriptor = descriptor_of(entry, "test")
    return await layout.read_range(descriptor, 0, descriptor.size_bytes)


async def test_the_golden_digests_hold(tmp_path: Path, options: RegistryOptions) -> None:
    """The compressed ones hold for the pinned zstandard; the diff_ids hold for any."""
    base = await write_base_index(tmp_path)
    directory = write_model(tmp_path / "model", [64, 32, 300])
    assert await digests_of(directory, base, tmp_path / "out", options) == IMAGES
    assert zstandard.__version__ == "0.25.0"
    assert GOLDEN["plain"]["diff_ids"] == GOLDEN["zstd"]["diff_ids"] == GOLDEN["plain"]["layers"]
    assert GOLDEN["resharded"]["layers"] == GOLDEN["resharded"]["diff_ids"] != GOLDEN["plain"]["layers"]
    assert GOLDEN["index"]["layers"] == GOLDEN["plain"]["layers"]


@VARIED
@given(
    order=st.randoms(use_true_random=False),
    umask=st.sampled_from([0o000, 0o022, 0o027, 0o077]),
    mtime_s=st.integers(0, 2**33),
)
def test_every_form_has_one_digest(
    tmp_path_factory: pytest.TempPathFactory, options: RegistryOptions, order: Any, umask: int, mtime_s: int
) -> None:
    """Other times, modes, umask, order and place: the golden digests, each time."""
    where = tmp_path_factory.mktemp("varied")

    async def build() -> dict[str, Any]:
        base = await write_base_index(where)
        return await digests_of(write_varied(where, order, umask, mtime_s), base, where / "out", options)

    assert anyio.run(build) == IMAGES


async def test_a_hub_snapshot_has_the_digests_of_a_plain_directory(tmp_path: Path, options: RegistryOptions) -> None:
    """The Hub's cache: links into `blobs/`, whose names are digests."""
    base = await write_base_index(tmp_path)
    plain = write_model(tmp_path / "plain", [64, 32, 300])
    snapshot = tmp_path / "models--example--tiny" / "snapshots" / ("1" * 40)
    blobs = tmp_path / "models--example--tiny" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in plain.iterdir():
        blob_path = blobs / digest_of_bytes(path.read_bytes()).removeprefix("sha256:")
        path.rename(blob_path)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob_path.name}")
    assert await digests_of(snapshot, base, tmp_path / "out", options) == IMAGES


async def test_the_command_line_gives_the_librarys_digest(tmp_path: Path, options: RegistryOptions) -> None:
    """Another process, locale, zone and umask; Dagger's functions run this very command."""
    base = await write_base_index(tmp_path)
    directory = write_model(tmp_path / "model", [MIB, 32])
    build = BuildOptions(
        compression=Compression.ZSTD, reshard_bytes=MIB, platforms=("linux/amd64", "linux/arm64"), created_s=5
    )
    here = await build_layout(open_source(directory), base, tmp_path / "here", build=build, options=options)
    arguments = ["--source", str(directory), "--layout", str(tmp_path / "there"), "--base-image", base, "--json"]
    forms = ["--compression=zstd", "--reshard=1MiB", "--platform=linux/arm64,linux/amd64"]
    done = await anyio.run_process(
        [sys.executable, "-c", "from servepath.cli import main; main()", "modelcar", *arguments, *forms],
        env=os.environ | {"LC_ALL": "C", "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "5"},
        umask=0o077,
    )
    assert json.loads(done.stdout)["digest"] == here.digest


async def test_an_index_serves_every_platform_and_sends_the_model_once(
    tmp_path: Path, registry: str, repository: str, options: RegistryOptions
) -> None:
    base = await write_base_index(tmp_path)
    source = open_source(write_model(tmp_path / "model", [5 * MIB]))
    build = BuildOptions(platforms=("linux/amd64", "linux/arm64"))
    pushed = await build_and_push(source, base, registry, repository, build=build, options=options)
    assert source.files
    assert 10 * MIB < pushed.sent_bytes < 11 * MIB
    written = await build_layout(source, base, tmp_path / "out", build=build, options=options)
    assert written.digest == pushed.digest
    layout = Layout(tmp_path / "out")
    index = (await layout.read_manifest(pushed.digest)).json
    assert index["mediaType"] == INDEX
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64"},
    ]
    manifests = await manifests_of(layout, pushed)
    assert manifests[0]["layers"] == manifests[1]["layers"]
    assert manifests[0]["config"] != manifests[1]["config"]
    assert index["annotations"] == manifests[0]["annotations"] == pushed.annotations
    configs = [json.loads(await blob(layout, manifest["config"])) for manifest in manifests]
    assert [config["architecture"] for config in configs] == ["amd64", "arm64"]
    again = await build_and_push(source, base, registry, repository, build=build, options=options)
    assert (again.digest, again.sent_bytes) == (pushed.digest, 0)


async def test_one_platform_stays_one_manifest_and_their_order_does_not_count(
    model: Path, tmp_path: Path, options: RegistryOptions
) -> None:
    base = await write_base_index(tmp_path)
    digests = []
    for number, platforms in enumerate(
        [("linux/arm64", "linux/amd64"), ("linux/amd64", "linux/arm64", "linux/amd64"), ("linux/amd64", "linux/amd64")]
    ):
        build = BuildOptions(platforms=platforms)
        modelcar = await build_layout(open_source(model), base, tmp_path / str(number), build=build, options=options)
        digests.append(modelcar.digest)
    assert digests[0] == digests[1] != digests[2]
    single = await Layout(tmp_path / "2").read_manifest(digests[2])
    assert not single.is_index


async def test_a_base_of_one_platform_makes_no_index(
    model: Path, base: str, tmp_path: Path, options: RegistryOptions
) -> None:
    build = BuildOptions(platforms=("linux/amd64", "linux/arm64"))
    with pytest.raises(InputError, match="the base image is for linux/amd64"):
        await build_layout(open_source(model), base, tmp_path / "out", build=build, options=options)


async def test_a_compressed_layer_holds_the_same_tar(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    source = open_source(write_model(tmp_path / "model", [3 * MIB, 32]))
    build = BuildOptions(compression=Compression.ZSTD, own_layer_bytes=MIB)
    pushed = await build_and_push(source, base, registry, repository, build=build, options=options)
    written = await build_layout(source, base, tmp_path / "out", build=build, options=options)
    assert written.digest == pushed.digest
    plain = await build_layout(
        source, base, tmp_path / "plain", build=replace(build, compression=Compression.NONE), options=options
    )
    layout = Layout(tmp_path / "out")
    manifest = (await layout.read_manifest(pushed.digest)).json
    config = json.loads(await blob(layout, manifest["config"]))
    assert config["rootfs"]["diff_ids"] == [layer.digest for layer in plain.layers]
    assert [entry["mediaType"] for entry in manifest["layers"][1:]] == [ZSTD_MEDIA_TYPE] * 2
    for entry, tar_layer in zip(manifest["layers"][1:], plain.layers[1:], strict=True):
        data = await blob(layout, entry)
        assert len(data) < tar_layer.size_bytes / 10  # the test's weights repeat four bytes
        tar = zstandard.ZstdDecompressor().decompress(data)  # one frame, whose header says its size
        assert digest_of_bytes(tar) == tar_layer.digest
        with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
            assert set(opened.getnames()) >= set(tar_layer.members)


@pytest.mark.parametrize("position", [-1, 6_000_000])
async def test_a_first_push_compresses_a_layer_once_for_each_attempt(
    tmp_path: Path,
    base: str,
    registry: str,
    repository: str,
    options: RegistryOptions,
    monkeypatch: pytest.MonkeyPatch,
    position: int,
) -> None:
    """Its size and digest are known only at its end, and what breaks off on the way is made again."""
    model = write_model(tmp_path / "model")
    noise = random.Random(1).randbytes(12 * MIB)  # noqa: S311 - noise, not a secret
    header = {"x": {"dtype": "U8", "shape": [len(noise)], "data_offsets": [0, len(noise)]}}
    (model / "model-00001-of-00001.safetensors").write_bytes(safetensors_bytes(header, noise))
    (model / "model.safetensors.index.json").unlink()
    read: list[int] = []
    compress = CompressedLayer._compress

    def counted(layer: CompressedLayer, inner_tap: Tap) -> Generator[bytes, None, None]:
        read.append(layer.plan.size_bytes)
        return compress(layer, inner_tap)

    monkeypatch.setattr(CompressedLayer, "_compress", counted)
    build = BuildOptions(compression=Compression.ZSTD)
    with wire_to(registry) as wire:
        wire.cut_after = position
        pushed = await build_and_push(open_source(model), base, wire.host, repository, build=build, options=options)
    assert len([size_bytes for size_bytes in read if size_bytes > len(noise)]) == (1 if position < 0 else 2)
    results = await verify_content(f"{registry}/{repository}@{pushed.digest}", options=options)
    assert [result for result in results if result.verdict is Verdict.FAIL] == []
    layout = Layout(tmp_path / "out")
    for number in range(2):  # compressed while it is written, then found
        written = await build_layout(open_source(model), base, layout.directory, build=build, options=options)
        assert (written.digest, written.sent_bytes == 0) == (pushed.digest, bool(number))


@VARIED
@given(data=st.binary(max_size=200_000), repeats=st.integers(1, 30))
def test_compression_is_lossless_and_always_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, repeats: int
) -> None:
    path = tmp_path_factory.mktemp("x") / "x"
    path.write_bytes(data * repeats)
    layer = CompressedLayer(plan_layer({"models/x": path}))

    async def compress() -> tuple[bytes, str]:
        measured = await layer.measure()
        streamed = b"".join([chunk async for chunk in measured.open(lambda _: None)])
        assert (digest_of_bytes(streamed), len(streamed)) == (measured.descriptor.digest, measured.size_bytes)
        assert measured.diff_id == await digest_of(layer.plan)
        return streamed, measured.diff_id

    (streamed, diff_id), again = anyio.run(compress), anyio.run(compress)
    assert (streamed, diff_id) == again
    assert digest_of_bytes(zstandard.ZstdDecompressor().decompress(streamed)) == diff_id


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"platforms": ()}, "not a platform: 'none'"),
        ({"platforms": ("linux",)}, "not a platform: 'linux'"),
        ({"reshard_bytes": -1}, "reshard is -1 bytes"),
        ({"max_layers": 1}, "1 layers at most"),
    ],
)
def test_options_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BuildOptions(**values)


def test_a_plan_holds_the_layers_once_for_all_platforms(model: Path) -> None:
    bases = [BaseImage(config={"os": "linux", "architecture": name}) for name in ("amd64", "arm64")]
    plan = plan_modelcar(open_source(model), bases, BuildOptions(platforms=("linux/amd64", "linux/arm64")))
    assert isinstance(plan, ModelcarPlan)
    assert len(plan.images) == 2
    assert isinstance(plan.images[0][1], ImageMetadata)
    assert all(isinstance(layer, LayerPlan) for layer in plan.layers)
