"""A push that is cut at any byte continues: in the same process, and in the next one after a kill."""

from __future__ import annotations

import os
import random
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.errors import RegistryError
from servepath.evidence import Verdict
from servepath.modelcar.build import build_and_push
from servepath.modelcar.push.push_cache import PushCache, UploadSession
from servepath.modelcar.registry.upload import LOOKS
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.cutting import keeping_registry, wire_to
from tests.unit.modelcar.helpers import MIB, write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servepath.modelcar.model import Progress
    from servepath.modelcar.registry.client import RegistryOptions
    from tests.unit.modelcar.cutting import KeepingRegistry

pytestmark = pytest.mark.anyio
SHARD_BYTES = 9 * MIB
SHARDS = [SHARD_BYTES // 2] * 2  # BF16 elements
POSITIONS = sorted(random.Random(5).sample(range(1, 2 * SHARD_BYTES), 4))  # noqa: S311 - where a push is cut

_PUSH = """
import anyio, sys
from pathlib import Path
from servepath.modelcar.build import build_and_push
from servepath.modelcar.registry.client import RegistryOptions
from servepath.modelcar.source.directory import open_source
async def main():
    model, base, registry, repository = sys.argv[1:]
    await build_and_push(open_source(Path(model)), base, registry, repository, options=RegistryOptions(uploads=1))
anyio.run(main)
"""


async def assert_whole(reference: str, options: RegistryOptions) -> None:
    results = await verify_content(reference, options=options)
    assert [r for r in results if r.verdict is Verdict.FAIL] == []
    assert [r.verdict for r in results if r.name == "modelcar-content"] == [Verdict.PASS]


async def push_and_be_killed(arguments: list[str], arm: Callable[[Callable[[], None]], None]) -> None:
    """Run a push in a process of its own, which `arm`'s argument kills."""
    async with await anyio.open_process([sys.executable, "-c", _PUSH, *arguments], stdout=None, stderr=None) as process:
        arm(lambda: os.kill(process.pid, signal.SIGKILL))
        await process.wait()
    assert process.returncode == -signal.SIGKILL


async def push_a_part(keeping: KeepingRegistry, model: Path, base: str, repository: str) -> None:
    """Run a push that is killed when 5 MiB of a layer have come."""

    def arm(kill: Callable[[], None]) -> None:
        keeping.on_cut, keeping.cut_after = kill, 5 * MIB

    await push_and_be_killed([str(model), base, keeping.host, repository], arm)


@pytest.mark.parametrize("position", POSITIONS)
async def test_a_broken_connection_costs_no_byte_twice(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions, position: int
) -> None:
    write_model(model, SHARDS)
    with keeping_registry(registry) as keeping:
        keeping.cut_after = position
        pushed = await build_and_push(open_source(model), base, keeping.host, repository, options=options)
        assert keeping.cut_after == -1
        assert keeping.count("GET", "uploads/") == 1
        assert keeping.received_bytes == pushed.size_bytes
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


@pytest.mark.parametrize("position", POSITIONS)
async def test_a_killed_process_costs_no_byte_twice(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions, position: int
) -> None:
    write_model(model, SHARDS)
    with keeping_registry(registry) as keeping:

        def arm(kill: Callable[[], None]) -> None:
            keeping.on_cut, keeping.cut_after = kill, position

        await push_and_be_killed([str(model), base, keeping.host, repository], arm)
        await anyio.sleep(0.05)
        pushed = await build_and_push(
            open_source(model), base, keeping.host, repository, options=replace(options, uploads=1)
        )
        assert keeping.count("POST", "uploads/") <= 5  # the base, two shards, the small files, the config
        assert keeping.received_bytes == pushed.size_bytes
        assert 0 < pushed.sent_bytes <= pushed.size_bytes - position
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("position", POSITIONS[::2])
async def test_docker_registry_that_keeps_no_part_of_a_blob_gets_it_anew(
    model: Path,
    base: str,
    registry: str,
    repository: str,
    options: RegistryOptions,
    position: int,
    *,
    is_killed: bool,
) -> None:
    write_model(model, SHARDS)
    with wire_to(registry) as wire:
        if is_killed:

            def arm(kill: Callable[[], None]) -> None:
                wire.on_cut, wire.cut_after = kill, position

            await push_and_be_killed([str(model), base, wire.host, repository], arm)
        else:
            wire.cut_after = position
        pushed = await build_and_push(
            open_source(model), base, wire.host, repository, options=replace(options, uploads=1)
        )
        assert wire.cut_after == -1
        assert wire.sent_bytes < pushed.size_bytes + SHARD_BYTES + MIB  # a shard that was complete is not sent again
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


async def test_an_upload_that_is_gone_is_begun_anew(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, SHARDS[:1])
    with keeping_registry(registry) as keeping:
        await push_a_part(keeping, model, base, repository)
        keeping.uploads.clear()
        pushed = await build_and_push(open_source(model), base, keeping.host, repository, options=options)
        assert keeping.count("GET", "uploads/") == 1
    assert pushed.sent_bytes > SHARD_BYTES
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


async def test_an_upload_that_the_registry_cannot_tell_about_is_begun_anew(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, SHARDS[:1])
    with keeping_registry(registry) as keeping:
        await push_a_part(keeping, model, base, repository)
        keeping.failing = rf"\w+ .*/uploads/{len(keeping.uploads)}$"
        pushed = await build_and_push(open_source(model), base, keeping.host, repository, options=options)
        assert keeping.count("GET", "uploads/") == LOOKS
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


async def test_an_upload_whose_address_may_not_be_used_is_begun_anew(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(model, SHARDS[:1])
    for address in ("http://192.0.2.1/v2/a/blobs/uploads/1", "nowhere"):
        monkeypatch.setattr(PushCache, "upload", lambda *_, address=address: nullcontext(begun_at(address)))
        pushed = await build_and_push(
            open_source(model), base, registry, f"{repository}-{len(address)}", options=options
        )
        await assert_whole(pushed.reference, options)


async def test_an_outage_of_the_registry_costs_no_byte_twice(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, SHARDS[:1])
    with keeping_registry(registry) as keeping:
        await push_a_part(keeping, model, base, repository)
        keeping.failing = "uploads/"
        with pytest.raises(RegistryError, match="answered 500"):
            await build_and_push(open_source(model), base, keeping.host, repository, options=options)
        keeping.failing = ""
        pushed = await build_and_push(open_source(model), base, keeping.host, repository, options=options)
        assert 0 < pushed.sent_bytes <= pushed.size_bytes - 5 * MIB
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


def begun_at(address: str) -> UploadSession:
    session = UploadSession()
    session.save(address)
    return session


async def test_what_a_registry_kept_wrongly_is_found_by_the_digest_and_sent_anew(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, SHARDS[:1])
    with keeping_registry(registry) as keeping:
        keeping.cut_after, keeping.spoil = 5 * MIB, True
        pushed = await build_and_push(open_source(model), base, keeping.host, repository, options=options)
        assert keeping.count("PUT", "digest=") > 1
        assert keeping.received_bytes >= pushed.size_bytes + SHARD_BYTES
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


async def test_an_upload_of_a_file_that_was_edited_since_is_not_continued(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, SHARDS[:1])
    shard = model / "model-00001-of-00001.safetensors"
    with keeping_registry(registry) as keeping:
        await push_a_part(keeping, model, base, repository)
        before = shard.stat()
        with shard.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
        pushed = await build_and_push(open_source(model), base, keeping.host, repository, options=options)
        assert keeping.count("GET", "uploads/") == 0
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)


async def test_many_cuts_are_survived_while_each_time_more_is_there(
    model: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    write_model(model, SHARDS[:1])
    cuts = iter(range(MIB, SHARD_BYTES, 2 * MIB))
    with keeping_registry(registry) as keeping:

        def cut_again(_: Progress) -> None:
            if keeping.cut_after < 0:
                keeping.cut_after = next(cuts, -1)

        pushed = await build_and_push(
            open_source(model), base, keeping.host, repository, options=options, progress=cut_again
        )
        assert keeping.count("GET", "uploads/") > options.retry.attempts
        assert keeping.received_bytes == pushed.size_bytes
    await assert_whole(f"{registry}/{repository}@{pushed.digest}", options)
