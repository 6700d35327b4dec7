"""What earlier pushes learnt: it saves requests and bytes, and never makes a push wrong."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servepath.evidence import Verdict
from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.copy import copy
from servepath.modelcar.image.compress import Compression
from servepath.modelcar.image.layers import plan_layer
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.push import fingerprint, push_cache
from servepath.modelcar.push.fingerprint import fingerprint_of
from servepath.modelcar.push.push_cache import KnownLayer, PushCache, UploadSession
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.store import Descriptor, Document
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.helpers import MIB, write_model
from tests.unit.modelcar.test_modelcar_base import write_docker_base

if TYPE_CHECKING:
    from servepath.modelcar.registry.client import RegistryOptions
    from tests.unit.modelcar.faults import Faults

pytestmark = pytest.mark.anyio
BIG = 5 * MIB  # BF16 elements: a shard of 10 MiB, which gets a layer of its own
LAYER = KnownLayer(Descriptor("application/vnd.oci.image.layer.v1.tar", "sha256:" + "a" * 64, 7), "sha256:" + "b" * 64)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files that were written just now, so that no test has to wait until they have settled."""
    monkeypatch.setattr(fingerprint, "SETTLED_NS", 0)


@pytest.fixture
def cache(tmp_path: Path) -> PushCache:
    return PushCache(tmp_path / "push")


def cache_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def written_back(path: Path, data: bytes) -> None:
    """Edit a file in place and set its times back, as a careful liar would."""
    before = path.stat()
    assert len(data) == before.st_size
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.usefixtures("at_once")
async def test_a_push_of_what_is_there_costs_head_requests_only(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    source = open_source(write_model(model, [BIG, BIG]))
    first = await build_and_push(source, base, faults.host, repository, tag="1", options=options)
    faults.seen.clear()
    again = await build_and_push(source, base, faults.host, repository, tag="1", options=options)
    assert (again.digest, again.sent_bytes) == (first.digest, 0)
    assert [method for method, _, _ in faults.seen] == ["HEAD"] * 6  # base, three layers, config, manifest


@pytest.mark.usefixtures("at_once")
async def test_a_known_layer_is_not_read(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    source = open_source(write_model(model, [BIG]))
    first = await build_and_push(source, base, registry, repository, options=options)
    before = _read_bytes()
    assert (await build_and_push(source, base, registry, repository, options=options)).digest == first.digest
    assert _read_bytes() - before < MIB


def _read_bytes() -> int:
    """Bytes that this process has read by system calls, from the page cache too."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.usefixtures("at_once")
async def test_a_changed_small_file_costs_kilobytes_and_a_changed_shard_that_shard(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [BIG, BIG])
    (model / "tokenizer.json").write_bytes(b"t" * 7_000_000)  # as large as Qwen's
    await build_and_push(open_source(model), base, faults.host, repository, options=options)
    faults.seen.clear()
    (model / "generation_config.json").write_text('{"temperature": 0.1}')
    changed = await build_and_push(open_source(model), base, faults.host, repository, options=options)
    assert 0 < changed.sent_bytes < 20_000
    assert faults.count("PUT", "digest=") == 2  # the small files and the config
    shard = model / "model-00002-of-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    changed = await build_and_push(open_source(model), base, faults.host, repository, options=options)
    assert 10 * MIB < changed.sent_bytes < 10 * MIB + 20_000


@pytest.mark.usefixtures("at_once")
async def test_an_edit_with_the_same_size_and_the_old_mtime_is_noticed(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, [BIG])
    shard = model / "model-00001-of-00001.safetensors"
    first = await build_and_push(open_source(model), base, registry, repository, options=options)
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    written_back(shard, bytes(data))
    second = await build_and_push(open_source(model), base, registry, repository, options=options)
    assert second.layers[-2].digest != first.layers[-2].digest
    uncached = replace(options, cache=PushCache(None))
    assert (
        await build_and_push(open_source(model), base, registry, repository, options=uncached)
    ).digest == second.digest


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path: Path, cache: PushCache) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    plan = plan_layer({"models/x": path})
    fresh = fingerprint_of(plan)
    assert not fresh.is_settled  # an edit in the same tick of the clock would have the same fingerprint
    cache.remember_layer(fresh, LAYER)
    assert cache.layer(fresh) is None
    os.utime(path, ns=(0, time.time_ns() - 10**12))
    assert not fingerprint_of(plan).is_settled  # the ctime tells that the mtime was set


def test_a_fingerprint_is_of_names_and_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"same")
    other.write_bytes(b"same")
    keys = {
        fingerprint_of(plan, form).key
        for plan in (plan_layer({"models/x": one}), plan_layer({"models/x": other}), plan_layer({"models/y": one}))
        for form in ("", "zstd")
    }
    assert len(keys) == 6
    assert fingerprint_of(plan_layer({"models/x": one})).key in keys


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("damage", ["garbage", "empty", "another entry", "one bit"])
async def test_a_broken_cache_is_as_good_as_none(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions, tmp_path: Path, damage: str
) -> None:
    directory = tmp_path / "push"
    options = replace(options, cache=PushCache(directory))
    source = open_source(write_model(model, [BIG]))
    first = await build_and_push(source, base, registry, repository, options=options)
    files = cache_files(directory)
    assert {path.parent.name for path in files} == {"layers", "blobs"}  # the upload is over, so nothing is kept of it
    for path in files:
        data = path.read_bytes()
        broken = {
            "garbage": os.urandom(len(data)),
            "empty": b"",
            "another entry": b'{"entry": {"digest": 5}, "sha256": ""}',
            "one bit": bytes([*data[:60], data[60] ^ 1, *data[61:]]),
        }
        path.write_bytes(broken[damage])
    again = await build_and_push(source, base, registry, repository, options=options)
    assert (again.digest, again.sent_bytes) == (first.digest, 0)
    assert all(path.read_bytes() for path in cache_files(directory))  # and it is made anew


async def test_a_cache_that_cannot_be_written_is_done_without(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = replace(options, cache=PushCache(tmp_path / "file" / "push"))
    source = open_source(write_model(model, [BIG]))
    first = await build_and_push(source, base, registry, repository, options=blocked)
    assert (await build_and_push(source, base, registry, repository, options=blocked)).digest == first.digest


@pytest.mark.usefixtures("at_once")
async def test_another_repository_of_the_registry_gives_its_blobs(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions
) -> None:
    source = open_source(write_model(model, [BIG]))
    first = await build_and_push(source, base, faults.host, repository, options=options)
    faults.seen.clear()
    second = await build_and_push(source, base, faults.host, f"{repository}-2", options=options)
    assert faults.count("POST", "mount=") == 4  # base, two layers, config
    assert (second.digest, second.sent_bytes) == (first.digest, 0)
    results = await verify_content(second.reference, options=options)
    assert [r for r in results if r.verdict is Verdict.FAIL] == []


async def test_a_repository_that_lost_its_blobs_is_asked_once(
    model: Path, base: str, faults: Faults, repository: str, options: RegistryOptions, cache: PushCache
) -> None:
    options = replace(options, cache=cache)
    source = open_source(model)
    first = await build_and_push(source, base, faults.host, repository, options=options)
    for layer in first.layers:
        cache.forget_holder(faults.host, repository, layer.digest)
        cache.remember_holder(faults.host, "test/nothing-here", layer.digest)
    for suffix in ("-2", "-3"):
        faults.seen.clear()
        pushed = await build_and_push(source, base, faults.host, f"{repository}{suffix}", options=options)
        assert pushed.digest == first.digest
        assert faults.count("POST", "from=test%2Fnothing-here") == (2 if suffix == "-2" else 0)


@pytest.mark.usefixtures("at_once")
async def test_a_compressed_layer_is_known_too(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions, tmp_path: Path
) -> None:
    source = open_source(write_model(model, [BIG]))
    build = BuildOptions(compression=Compression.ZSTD)
    first = await build_and_push(source, base, registry, repository, build=build, options=options)
    before = _read_bytes()
    again = await build_and_push(source, base, registry, repository, build=build, options=options)
    assert (again.digest, again.sent_bytes) == (first.digest, 0)
    assert _read_bytes() - before < MIB
    layout = await build_layout(source, base, tmp_path / "out", build=build, options=options)
    assert layout.digest == first.digest


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("damage", [False, True])
async def test_a_base_is_read_from_its_registry_once(
    model: Path,
    tmp_path: Path,
    faults: Faults,
    registry: str,
    repository: str,
    options: RegistryOptions,
    cache: PushCache,
    *,
    damage: bool,
) -> None:
    layout, _, _ = await write_docker_base(tmp_path)  # an index, a manifest and a configuration
    copied = await copy(layout, registry, f"{repository}-base", options=options)
    base = f"{faults.host}/{repository}-base@{copied.digest}"
    options = replace(options, cache=cache)
    source = open_source(model)
    first = await build_and_push(source, base, registry, repository, options=options)
    assert faults.count("GET", "/manifests/") == 2
    assert faults.count("GET", "/blobs/") == 2  # the configuration, and the layer that was missing
    for path in cache_files(tmp_path / "push" / "documents") if damage else ():
        path.write_bytes(path.read_bytes()[:-9])
    faults.seen.clear()
    assert (await build_and_push(source, base, registry, repository, options=options)).digest == first.digest
    assert len(faults.seen) == (3 if damage else 0)


async def test_documents_are_known_by_their_digest_alone(tmp_path: Path, cache: PushCache) -> None:
    document = Document("application/json", digest_of_bytes(b"{}"), b"{}")
    cache.remember_document(document)
    assert cache.document(document.digest) == document
    other = "sha256:" + "a" * 64
    (tmp_path / "push/documents").joinpath(other.replace(":", "-")).write_bytes(
        (tmp_path / "push/documents").joinpath(document.digest.replace(":", "-")).read_bytes()
    )
    assert cache.document(other) is None
    cache.remember_document(Document("application/json", digest_of_bytes(b"\xff"), b"\xff"))
    assert cache.document(digest_of_bytes(b"\xff")) is None


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert push_cache.default_cache() is push_cache.NO_CACHE
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    push_cache.default_cache().remember_holder("r", "repository", LAYER.diff_id)
    assert len(cache_files(tmp_path / "servepath" / "push")) == 1


def test_holders_are_few_and_the_latest_first(cache: PushCache) -> None:
    for number in range(20):
        cache.remember_holder("r", f"repository-{number}", LAYER.diff_id)
    cache.remember_holder("r", "repository-7", LAYER.diff_id)
    held = cache.holders("r", LAYER.diff_id)
    assert (len(held), held[:2]) == (push_cache.MAX_HOLDERS, ("repository-7", "repository-19"))
    assert cache.holders("elsewhere", LAYER.diff_id) == ()


def test_a_cache_does_not_grow_for_ever(cache: PushCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(push_cache, "MAX_ENTRIES", 10)
    for number in range(30):
        cache.remember_holder("r", "repository", f"sha256:{number:064x}")
    assert len(cache_files(tmp_path / "push")) <= 10
    assert cache.holders("r", f"sha256:{29:064x}") == ("repository",)


@pytest.mark.usefixtures("at_once")
def test_an_upload_belongs_to_one_process_at_a_time(tmp_path: Path, cache: PushCache) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    key = fingerprint_of(plan_layer({"models/x": path}))
    with cache.upload("r", "a/b", key) as mine:
        mine.save("https://r/v2/a/b/blobs/uploads/1")
        with cache.upload("r", "a/b", key) as other, cache.upload("r", "a/c", key) as elsewhere:
            assert (other.location, elsewhere.location) == ("", "")
            other.save("https://r/v2/a/b/blobs/uploads/2")
    with cache.upload("r", "a/b", key) as later:
        assert later.location == "https://r/v2/a/b/blobs/uploads/1"
        later.save("")
    with cache.upload("r", "a/b", key) as last:
        assert last.location == ""
    assert cache_files(tmp_path / "push") == []


def test_an_upload_whose_address_was_cut_while_it_was_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "session"
    path.touch()
    with path.open("r+b", buffering=0) as file:
        UploadSession(file).save("https://r/v2/a/b/blobs/uploads/1")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with path.open("r+b", buffering=0) as file:
            assert UploadSession(file).location == ""
