"""The Hub source against a local server that speaks the Hub's API and misbehaves."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.errors import InputError
from servepath.modelcar.registry.retry import RetryPolicy
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.hub import HubOptions, download
from servepath.modelcar.source.hub_digests import NOTES, check_snapshot
from tests.unit.modelcar.fake_hub import COMMIT, REPOSITORY, FakeHub, Fault, running_hub
from tests.unit.modelcar.helpers import MIB, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio
SPEC = f"{REPOSITORY}@{COMMIT}"
SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits for seconds between its own attempts."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)


@pytest.fixture
def hub(model: Path) -> Iterator[FakeHub]:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (model / "original").mkdir()
    (model / "original" / "notes.txt").write_text("not wanted")
    with running_hub(model) as running:
        yield running


@pytest.fixture
def hub_options(hub: FakeHub, tmp_path: Path) -> HubOptions:
    retry = RetryPolicy(attempts=3, base_s=0.01, longest_s=0.1)
    return HubOptions(cache=tmp_path / "cache", endpoint=hub.endpoint, downloads=1, token="hf_opensesame", retry=retry)


def requested(hub: FakeHub, name: str) -> list[str]:
    return [f"{seen.method} {seen.headers.get('Range', '')}".strip() for seen in hub.seen if seen.path.endswith(name)]


async def test_a_commit_is_downloaded_and_found_again_offline(
    hub: FakeHub, hub_options: HubOptions, tmp_path: Path
) -> None:
    source = await download(SPEC, hub_options)
    assert (source.origin, source.revision, source.name) == (REPOSITORY, COMMIT, "Tiny-Llama")
    plain = open_source(write_model(tmp_path / "plain"))
    assert (source.files, source.parameters, source.licence) == (plain.files, plain.parameters, plain.licence)
    assert requested(hub, "pytorch_model.bin") == requested(hub, "original/notes.txt") == []
    hub.seen.clear()
    offline = HubOptions(cache=hub_options.cache, endpoint=hub.endpoint, offline=True)
    assert (await download(SPEC, offline)).directory == source.directory
    assert hub.seen == []
    assert "opensesame" not in repr(hub_options)


async def test_a_second_download_needs_no_server(model: Path, tmp_path: Path) -> None:
    retry = RetryPolicy(attempts=1)
    with running_hub(model) as hub:
        options = HubOptions(cache=tmp_path / "cache", endpoint=hub.endpoint, retry=retry)
        first = await download(SPEC, options)
    assert await download(SPEC, options) == first  # the server is gone, and nobody said `offline`


async def test_patterns_choose_the_files(hub: FakeHub, hub_options: HubOptions) -> None:
    chosen = replace(hub_options, included=("*.safetensors*", "config.json", "LICENSE"), ignored=("*.index.json",))
    source = await download(SPEC, chosen)
    assert source.files == ("LICENSE", "config.json", SHARD)
    assert requested(hub, "README.md") == []


async def test_a_download_that_is_cut_goes_on_where_it_stopped(model: Path, tmp_path: Path) -> None:
    write_model(model, [12 * MIB])
    with running_hub(model) as hub:
        options = HubOptions(cache=tmp_path / "cache", endpoint=hub.endpoint, retry=RetryPolicy(3, 0.01, 0.1))
        hub.faults = [Fault(SHARD, cut_after_bytes=15 * MIB)]
        source = await download(SPEC, options)
        resumed = [text for text in requested(hub, SHARD) if text.startswith("GET bytes=")]
    assert (source.directory / SHARD).read_bytes() == (model / SHARD).read_bytes()
    assert len(resumed) == 1
    assert 0 < int(resumed[0].removeprefix("GET bytes=").rstrip("-")) <= 15 * MIB


async def test_a_download_that_was_interrupted_is_continued_by_the_next_run(
    hub: FakeHub, hub_options: HubOptions
) -> None:
    once = replace(hub_options, retry=RetryPolicy(attempts=1))
    hub.faults = [Fault("README.md", method=method, status=500) for method in ("HEAD", "GET") for _ in range(30)]
    with pytest.raises(InputError, match="answered 500"):
        await download(SPEC, once)
    with pytest.raises(InputError, match="not all of it, in the Hub cache"):
        await download(SPEC, replace(once, offline=True))
    hub.faults = []
    before = len(requested(hub, "LICENSE"))
    assert "README.md" in (await download(SPEC, once)).files
    assert before == 0 or not [text for text in requested(hub, "LICENSE")[before:] if text == "GET"]


async def test_a_commit_that_is_not_in_the_cache_is_refused_offline(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="offline"):
        await download(SPEC, HubOptions(cache=tmp_path, offline=True))


async def test_a_missing_commit_is_refused(hub_options: HubOptions) -> None:
    with pytest.raises(InputError, match="no such model or commit"):
        await download(f"{REPOSITORY}@{'d' * 40}", hub_options)


async def test_a_gated_model_says_what_to_do(hub: FakeHub, hub_options: HubOptions) -> None:
    hub.gated = True
    with pytest.raises(InputError, match="gated") as caught:
        await download(SPEC, hub_options)
    assert "hf auth login" in caught.value.next_command


async def test_a_hub_that_answers_429_and_503_is_tried_again(hub: FakeHub, hub_options: HubOptions) -> None:
    hub.faults = [Fault("/tree/", 429, {"Retry-After": "0"}), Fault("/tree/", 503), Fault("config.json", 429)]
    assert (await download(SPEC, hub_options)).revision == COMMIT
    assert hub.faults == []


async def test_retry_after_is_obeyed(hub: FakeHub, hub_options: HubOptions) -> None:
    hub.faults = [Fault("/tree/", 429, {"Retry-After": "1"}) for _ in range(20)]
    patient = replace(hub_options, retry=RetryPolicy(attempts=2, base_s=0.01, longest_s=5))
    began = time.monotonic()
    with pytest.raises(InputError, match="answered 429, 2 times"):
        await download(SPEC, patient)
    assert time.monotonic() - began >= 1


async def test_a_refusal_is_not_tried_again(hub: FakeHub, hub_options: HubOptions) -> None:
    hub.faults = [Fault("/tree/", 418) for _ in range(20)]
    with pytest.raises(InputError, match="answered 418"):
        await download(SPEC, hub_options)
    assert len([seen for seen in hub.seen if "/tree/" in seen.path]) == 1


async def test_a_hub_that_never_answers_is_named(tmp_path: Path) -> None:
    retry = RetryPolicy(attempts=2, base_s=0.01, longest_s=0.1)
    options = HubOptions(cache=tmp_path, endpoint="http://127.0.0.1:1", retry=retry)
    with pytest.raises(InputError, match="2 times") as caught:
        await download(SPEC, options)
    assert caught.value.where == SPEC


@pytest.mark.parametrize("name", [SHARD, "LICENSE"])
async def test_a_file_with_other_bytes_is_refused(hub: FakeHub, hub_options: HubOptions, name: str) -> None:
    data = hub.files[name]
    hub.lies = {name: data[:-1] + bytes([data[-1] ^ 1])}
    with pytest.raises(InputError, match="other bytes than the Hub said") as caught:
        await download(SPEC, hub_options)
    assert name in caught.value.where
    with pytest.raises(InputError, match="other bytes than the Hub said"):  # and it stays refused
        await download(SPEC, replace(hub_options, offline=True))


@pytest.mark.parametrize("name", [SHARD, "LICENSE"])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"], ids=["shorter", "longer"])
async def test_a_file_of_another_size_is_refused(
    hub: FakeHub, hub_options: HubOptions, name: str, change: object
) -> None:
    hub.lies = {name: change(hub.files[name])}  # type: ignore[operator]
    with pytest.raises(InputError):
        await download(SPEC, hub_options)


async def test_the_token_goes_to_the_hub_and_never_to_where_it_keeps_its_files(
    hub: FakeHub, hub_options: HubOptions
) -> None:
    hub.token = "hf_opensesame"
    await download(SPEC, hub_options)
    storage = [seen for seen in hub.seen if hub.storage.endswith(seen.host)]
    assert storage
    assert not [seen for seen in storage if "hf_opensesame" in str(seen.headers)]
    assert all("Bearer hf_opensesame" in str(seen.headers) for seen in hub.seen if seen not in storage)
    with pytest.raises(InputError, match="no such model or commit"):
        await download(
            SPEC, replace(hub_options, token="hf_wrong", cache=hub_options.cache and hub_options.cache / "2")
        )


async def test_a_token_is_in_no_error(hub: FakeHub, hub_options: HubOptions) -> None:
    hub.faults = [Fault("/tree/", 400, body=b'{"error": "bad"}') for _ in range(5)]
    with pytest.raises(InputError) as caught:
        await download(SPEC, hub_options)
    assert "opensesame" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[1]",
        b'[{"type": "file"}]',
        b'{"error": 1}',
        b'[{"type":"file","path":"../../x","oid":"0","size":1}]',
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error_and_no_traceback(
    hub: FakeHub, hub_options: HubOptions, body: bytes, tmp_path: Path
) -> None:
    hub.faults = [Fault("/tree/", 200, {"Content-Type": "application/json"}, body=body) for _ in range(5)]
    hub.files["../../x"] = b"x"
    with pytest.raises(InputError):
        await download(SPEC, hub_options)
    assert not (tmp_path / "x").exists()


async def test_what_was_found_right_is_not_read_again(hub_options: HubOptions) -> None:
    source = await download(SPEC, hub_options)
    blob = (source.directory / SHARD).resolve()
    notes = source.directory.parent.parent / NOTES
    assert blob.name in notes.read_text()
    times = blob.stat().st_mtime_ns
    blob.write_bytes(b"x" * blob.stat().st_size)
    os.utime(blob, ns=(times, times))
    check_snapshot(source.directory)  # size and time are the same: not read
    os.utime(blob, ns=(times + 1, times + 1))
    with pytest.raises(InputError, match="other bytes"):
        check_snapshot(source.directory)
    notes.write_text("not json")
    with pytest.raises(InputError, match="other bytes"):
        check_snapshot(source.directory)


@pytest.mark.parametrize("spec", ["x", "a/b", "a/b@main", "a/b@" + "c" * 39, "a/b/c@" + "c" * 40, "../b@" + "c" * 40])
async def test_a_revision_that_is_no_commit_is_refused_before_any_request(
    hub: FakeHub, hub_options: HubOptions, spec: str
) -> None:
    with pytest.raises(InputError):
        await download(spec, hub_options)
    assert hub.seen == []
