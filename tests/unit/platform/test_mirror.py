"""A mirror: the lock's images and charts into a layout, and from there into another registry, with real registries."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from servepath.cli.app import app
from servepath.errors import InputError, UsageError
from servepath.modelcar.image.oci import BaseImage, ImageMetadata
from servepath.modelcar.layout import Layout
from servepath.modelcar.push.write import write_image
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_reference
from servepath.modelcar.registry.repository import Repository
from servepath.platform import mirror, mirroring
from servepath.platform.lock import ChartPin, ImagePin, Lock
from tests.unit.modelcar.registries import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UV = "ghcr.io/astral-sh/uv:0.9.30"
PYTHON = "docker.io/library/python:3.13"
CHART = ChartPin("cert-manager", "oci://quay.io/jetstack/charts/cert-manager", "v1.20.2+1")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("upstream")) as host:
        yield host


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("inside")) as host:
        yield host


async def put(host: str, repository: str, title: str, tag: str) -> str:
    """Put an image into a registry, and give its digest."""
    async with open_registry(host, RegistryOptions()) as client:
        metadata = ImageMetadata({"org.opencontainers.image.title": title})
        written = await write_image(Repository(client, repository), BaseImage(), (), metadata, tag=tag)
    return written.document.digest


async def read(host: str, repository: str, reference: str) -> str:
    """Give the digest of what a registry has under a name."""
    async with open_registry(host, RegistryOptions()) as client:
        return (await Repository(client, repository).read_manifest(reference)).digest


@pytest.fixture(scope="module")
async def lock(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Lock:
    """Two images by digest and a chart by version, in one registry that has upstream's under `all`."""
    python = await put(upstream, "all/library/python", "python", "3.13")
    uv = await put(upstream, "all/astral-sh/uv", "uv", "0.9.30")
    await put(upstream, "all/jetstack/charts/cert-manager", "chart", "v1.20.2_1")
    images = {"python": ImagePin("python", f"{PYTHON}@{python}"), "uv": ImagePin("uv", f"{UV}@{uv}")}
    return Lock(tmp_path_factory.mktemp("lock") / "lock.yaml", images, {CHART.name: CHART})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registry.internal", mirror.Mirror("registry.internal")),
        ("registry.internal:5000/a/b/", mirror.Mirror("registry.internal:5000", "a/b")),
        ("http://10.0.0.1:5000", mirror.Mirror("10.0.0.1:5000", "", plain_http=True)),
        ("https://localhost:5000", mirror.Mirror("localhost:5000")),
        ("127.0.0.1:5000", mirror.Mirror("127.0.0.1:5000", "", plain_http=True)),
        ("[::1]:5000", mirror.Mirror("[::1]:5000", "", plain_http=True)),
    ],
)
def test_a_mirror_is_read(text: str, expected: mirror.Mirror) -> None:
    assert mirror.parse_mirror(text) == expected


@pytest.mark.parametrize("text", ["", "ftp://registry.internal", "registry.internal:port", "http://"])
def test_what_is_no_mirror_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a registry"):
        mirror.parse_mirror(text)


def test_a_mirror_keeps_tags_and_digests() -> None:
    digest = "sha256:" + "a" * 64
    place = mirror.parse_mirror("http://10.0.0.1:5000/all")
    assert place.image(f"python:3.13@{digest}") == f"10.0.0.1:5000/all/library/python:3.13@{digest}"
    chart = place.chart(replace(CHART, digest=digest))
    assert chart.source == f"oci://10.0.0.1:5000/all/jetstack/charts/cert-manager@{digest}"
    assert chart.plain_http
    assert (place.url, place.address) == ("http://10.0.0.1:5000", "10.0.0.1:5000/all")


@pytest.mark.anyio
async def test_a_lock_is_carried_into_another_registry(lock: Lock, upstream: str, inside: str, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    through = mirror.parse_mirror(f"{upstream}/all")
    fetched = await mirroring.fetch(mirroring.wanted(lock), layout, through=through)
    assert [one.name for one in fetched] == [PYTHON, UV, "quay.io/jetstack/charts/cert-manager:v1.20.2_1"]
    assert [one.digest for one in fetched[:2]] == [pin.reference.partition("@")[2] for pin in lock.images.values()]

    published = await mirroring.publish(layout, mirror.parse_mirror(f"{inside}/mirror"))
    assert {one.digest for one in published} == {one.digest for one in fetched}
    assert {one.name.partition("/")[0] for one in published} == {inside}
    for one in fetched:
        name = parse_reference(one.name)
        assert await read(inside, f"mirror/{name.repository}", name.tag) == one.digest
        assert await read(inside, f"mirror/{name.repository}", one.digest) == one.digest


@pytest.mark.anyio
async def test_the_second_time_nothing_is_copied(lock: Lock, upstream: str, inside: str, tmp_path: Path) -> None:
    layout, place = tmp_path / "layout", mirror.parse_mirror(inside)
    for first in (True, False):
        fetched = await mirroring.fetch(mirroring.wanted(lock), layout, through=mirror.parse_mirror(f"{upstream}/all"))
        published = await mirroring.publish(layout, place)
        assert any(one.copied_bytes for one in fetched) is first
        assert any(one.copied_bytes for one in published) is first


@pytest.mark.anyio
async def test_what_is_named_alone_is_copied(lock: Lock, upstream: str, tmp_path: Path) -> None:
    also = f"{UV}@{lock.image('uv').reference.partition('@')[2]}"
    references = mirroring.wanted(lock, only=["python"], also=[also])
    fetched = await mirroring.fetch(references, tmp_path, through=mirror.parse_mirror(f"{upstream}/all"))
    assert [one.name for one in fetched] == [PYTHON, UV]


def test_a_name_that_the_lock_does_not_have_is_refused(lock: Lock) -> None:
    with pytest.raises(InputError, match="does not name k4s"):
        mirroring.wanted(lock, only=["k4s"])
    with pytest.raises(InputError, match="named by tag"):
        mirroring.wanted(lock, also=["docker.io/library/busybox:1"])


@pytest.mark.anyio
async def test_a_layout_without_names_is_refused(inside: str, tmp_path: Path) -> None:
    await write_image(Layout(tmp_path), BaseImage(), (), ImageMetadata({}))
    with pytest.raises(InputError, match="names no image"):
        await mirroring.publish(tmp_path, mirror.parse_mirror(inside))


def test_a_mirrored_lock_has_the_same_pins(lock: Lock) -> None:
    mirrored = mirror.mirrored_lock(lock, mirror.parse_mirror("registry.internal"))
    for name, pin in lock.images.items():
        assert mirrored.image(name).reference.partition("@")[2] == pin.reference.partition("@")[2]
    assert mirrored.chart("cert-manager").chart == "oci://registry.internal/jetstack/charts/cert-manager"


def test_the_command_copies_both_ways(
    lock: Lock, upstream: str, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = "".join(f"  {name}:\n    image: '{pin.reference}'\n" for name, pin in lock.images.items())
    chart = f"  {CHART.name}:\n    chart: {CHART.chart}\n    version: {CHART.version}\n    digest: unknown\n"
    lock.path.write_text(f"schema: servepath.lock/v1\nimages:\n{images}charts:\n{chart}releases: {{}}\n")
    monkeypatch.setattr("servepath.cli.mirror.lock_file", lambda: lock.path)
    layout = f"--layout={tmp_path / 'layout'}"
    done = CliRunner().invoke(app, ["mirror", layout, f"--registry-mirror={upstream}/all", "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) == 3
    done = CliRunner().invoke(app, ["mirror", layout, f"--push={inside}/command"])
    assert done.exit_code == 0, done.output
    assert "command/library/python:3.13@sha256:" in done.output
