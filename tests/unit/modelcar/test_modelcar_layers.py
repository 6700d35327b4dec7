from __future__ import annotations

import io
import os
import random
import sys
import tarfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servepath.errors import InputError
from servepath.modelcar.build import build_layout
from servepath.modelcar.checking.tarwalk import Window, walk
from servepath.modelcar.content import digest_of
from servepath.modelcar.image.layers import LayerPlan, Member, plan_layer, plan_layers
from servepath.modelcar.layout import Layout
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.source.directory import open_source
from tests.unit.modelcar.helpers import MIB, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio

GOLDEN_LAYER = "sha256:144386eaa0b07b12704c45df6c4b31675ea4ece941a8ced37ed39e7ba7b135c0"
GOLDEN_IMAGE = "sha256:799fd8f4d6b510f564c868e395c2438660f469fef3d67a1ae7438f9ae0965fbe"


async def tar_of(plan: LayerPlan) -> bytes:
    return b"".join([chunk async for chunk in plan.open(lambda _: None)])


async def test_the_golden_digests_hold(tmp_path: Path, base: str, options: RegistryOptions) -> None:
    """These digests were made on another day and machine: they may change only with the format, on purpose."""
    source = open_source(write_model(tmp_path / "tiny", [64, 32]))
    modelcar = await build_layout(source, base, tmp_path / "out", options=options)
    assert modelcar.layers[-1].digest == GOLDEN_LAYER
    assert modelcar.digest == GOLDEN_IMAGE


async def test_members_and_modes(model: Path) -> None:
    (model / "sub").mkdir()
    (model / "sub" / "x.json").write_text("{}")
    model.chmod(0o700)  # noqa: ASYNC240 - a test's own set-up
    (model / "config.json").chmod(0o600)
    [plan] = plan_layers({f"models/{name}": model / name for name in open_source(model).files})
    data = await tar_of(plan)
    assert len(data) == plan.size_bytes
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
        assert tar.extractfile("models/config.json").read() == (model / "config.json").read_bytes()  # type: ignore[union-attr]
    assert infos[0].name == "models"
    assert infos[0].isdir()
    assert {(i.uid, i.gid, i.mtime, i.uname, i.gname) for i in infos} == {(0, 0, 0, "", "")}
    assert {i.mode for i in infos if i.isdir()} == {0o755}
    assert {i.mode for i in infos if i.isreg()} == {0o644}
    assert not any(i.pax_headers for i in infos)


async def test_pax_records_carry_what_ustar_cannot(tmp_path: Path) -> None:
    long = "models/" + "d" * 120 + "/" + "f" * 130
    files = {long: tmp_path / "a", "models/ünïcode": tmp_path / "b", "models/plain": tmp_path / "c"}
    for path in files.values():
        path.write_text(path.name)
    data = await tar_of(plan_layer(files))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {info.name for info in tar if info.isreg()} == set(files)
        assert tar.getmember(long).pax_headers == {"path": long}
        assert tar.getmember("models/plain").pax_headers == {}

    async def read(start: int, length: int) -> bytes:
        return data[start : start + length]

    entries = [entry async for entry in walk(Window(read, len(data)), "layer")]
    assert {entry.name for entry in entries if entry.is_file} == set(files)


async def test_a_plan_of_200_gb_costs_no_reading(tmp_path: Path) -> None:
    """A file over 8 GiB needs PAX; sparse files make the sizes real."""
    files = {}
    for number in range(20):
        path = tmp_path / f"{number:02}"
        with path.open("wb") as file:
            file.truncate(10 << 30)
        files[f"models/{number:02}.safetensors"] = path
    started = time.monotonic()
    plans = plan_layers(files)
    assert sum(plan.size_bytes for plan in plans) > 200 << 30
    assert time.monotonic() - started < 5
    header = Member("models/x", tmp_path / "00", 10 << 30, 0o644).header(0)
    assert b"size=10737418240" in header


def test_big_files_alone_small_ones_last_and_a_bound_on_layers(tmp_path: Path) -> None:
    sizes = {"a": MIB - 1, "b": 10 * MIB, "c": 9 * MIB, "d": 12 * MIB, "e": 1}
    files = {}
    for name, size in sizes.items():
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(size)
        files[f"models/{name}"] = path
    names = [plan.names for plan in plan_layers(files)]
    assert names == [("models/b",), ("models/c",), ("models/d",), ("models/a", "models/e")]
    bounded = [plan.names for plan in plan_layers(files, max_layers=3)]
    assert bounded == [("models/b", "models/c"), ("models/d",), ("models/a", "models/e")]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.dictionaries(
        st.text("abcdef/é ", min_size=1, max_size=20), st.binary(max_size=2000), min_size=1, max_size=6
    ),
    seed=st.integers(0, 2**32),
)
def test_the_layer_depends_on_names_and_bytes_alone(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], seed: int
) -> None:
    """Other mtimes, modes, umask, creation and listing order: the same bytes."""
    chosen = {f"models/f{n}-{name.replace('/', '.')}": data for n, (name, data) in enumerate(sorted(contents.items()))}
    shuffled = list(chosen.items())
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret

    def write(order: list[tuple[str, bytes]], umask: int, mtime: int) -> bytes:
        root = tmp_path_factory.mktemp("tree")
        old = os.umask(umask)
        try:
            files = {}
            for number, (name, data) in enumerate(order):
                path = root / str(number)
                path.write_bytes(data)
                os.utime(path, (mtime, mtime))
                files[name] = path
        finally:
            os.umask(old)
        return b"".join(plan_layer(files).read())

    assert write(list(chosen.items()), 0o022, 1) == write(shuffled, 0o077, seed)


_BUILD = """
import anyio, sys
from pathlib import Path
from servepath.modelcar.build import build_layout
from servepath.modelcar.source.directory import open_source
async def main():
    print((await build_layout(open_source(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]))).digest)
anyio.run(main)
"""


@pytest.mark.parametrize(("locale", "umask", "zone"), [("C", 0o077, "UTC"), ("C.UTF-8", 0o002, "Asia/Kolkata")])
async def test_another_process_locale_umask_and_place_give_the_same_image(
    tmp_path: Path, base: str, options: RegistryOptions, locale: str, umask: int, zone: str
) -> None:
    here = await build_layout(open_source(write_model(tmp_path / "a", [5])), base, tmp_path / "x", options=options)
    there = write_model(tmp_path / "elsewhere" / "another name", [5])
    for path in there.iterdir():
        os.utime(path, (10**9, 10**9))
    program = await anyio.run_process(
        [sys.executable, "-c", _BUILD, str(there), base, str(tmp_path / "y")],
        env=os.environ | {"LC_ALL": locale, "TZ": zone, "PYTHONHASHSEED": "7"},
        umask=umask,
    )
    assert program.stdout.decode().strip() == here.digest


async def test_a_changed_byte_changes_the_digest(
    model: Path, tmp_path: Path, base: str, options: RegistryOptions
) -> None:
    before = await build_layout(open_source(model), base, tmp_path / "x", options=options)
    (model / "LICENSE").write_text("Other\n")
    after = await build_layout(open_source(model), base, tmp_path / "x", options=options)
    assert before.digest != after.digest


async def test_a_hub_snapshot_gives_the_plain_directorys_digest(
    tmp_path: Path, base: str, options: RegistryOptions
) -> None:
    plain = write_model(tmp_path / "plain")
    snapshot = tmp_path / "models--x--y" / "snapshots" / ("1" * 40)
    blobs = tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(plain.iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    images = [await build_layout(open_source(d), base, tmp_path / d.name, options=options) for d in (plain, snapshot)]
    assert images[0].digest == images[1].digest


async def test_the_image_says_what_it_is_and_has_no_entrypoint(
    model: Path, tmp_path: Path, base: str, options: RegistryOptions
) -> None:
    source = replace(open_source(model), origin="example/Tiny-Llama", revision="1" * 40)
    modelcar = await build_layout(source, base, tmp_path / "out", options=options)
    layout = Layout(tmp_path / "out")
    manifest = (await layout.read_manifest(modelcar.digest)).json
    config = (layout.directory / "blobs" / "sha256" / manifest["config"]["digest"][7:]).read_text()
    assert "Entrypoint" not in config
    assert '"Cmd":["sh"]' in config
    assert manifest["annotations"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert manifest["annotations"]["org.opencontainers.image.source"] == "https://huggingface.co/example/Tiny-Llama"
    assert manifest["annotations"]["org.opencontainers.image.revision"] == "1" * 40
    assert manifest["annotations"]["org.opencontainers.image.base.digest"] == base.rpartition("@")[2]
    assert manifest["annotations"]["io.servepath.model.parameters"] == "64"
    assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in modelcar.layers]


async def test_a_source_date_is_honoured(model: Path, tmp_path: Path, base: str, options: RegistryOptions) -> None:
    build = BuildOptions(created_s=1_700_000_000)
    modelcar = await build_layout(open_source(model), base, tmp_path / "out", build=build, options=options)
    assert modelcar.annotations["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("size", [10, 30])
async def test_a_file_that_changes_after_the_plan_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(20))
    plan = plan_layer({"models/x": path})
    path.write_bytes(bytes(size))
    with pytest.raises(InputError, match="changed while it was read"):
        await digest_of(plan)


async def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    plan = plan_layer({"models/x": path})
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        await digest_of(plan)
