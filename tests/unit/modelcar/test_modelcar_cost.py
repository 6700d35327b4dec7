"""What a push costs: processor, memory, disk and requests, measured in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from ci.modelcar_bench.sink import Sink
from servepath.errors import RegistryError
from servepath.evidence import Verdict
from servepath.modelcar.build import build_and_push
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.verify import verify_content
from tests.unit.modelcar.cutting import wire_to
from tests.unit.modelcar.helpers import MIB, header_of, safetensors_bytes, write_model
from tests.unit.modelcar.registries import running_registry
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio
MODEL_BYTES = 256 * MIB

_PUSH = """
import anyio, hashlib, json, resource, sys
from pathlib import Path
from servepath.modelcar.push import fingerprint
from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.source.directory import open_source

fingerprint.SETTLED_NS = 0  # the model was written just now

def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

def written_bytes():
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])

def hash_all(model):
    buffer = bytearray(1 << 18)
    begin_s = cpu_s()
    for path in sorted(Path(model).glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            sha256 = hashlib.sha256()
            while count := file.readinto(buffer):
                sha256.update(memoryview(buffer)[:count])
    return cpu_s() - begin_s

async def main():
    model, base, registry = sys.argv[1:]
    hash_all(model)  # from here on it is in the page cache
    hash_s = hash_all(model)
    begin_s, begin_bytes = cpu_s(), written_bytes()
    await build_and_push(open_source(Path(model)), base, registry, "a/b")
    pushed_s, pushed_bytes = cpu_s(), written_bytes()
    again = await build_and_push(open_source(Path(model)), base, registry, "a/b")
    again_s = cpu_s()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak_bytes = int(status["VmHWM"].split()[0]) * 1024  # ru_maxrss would be that of pytest, which started this
    print(json.dumps({
        "push_s": pushed_s - begin_s,
        "again_s": again_s - pushed_s,
        "hash_s": hash_s,
        "written_bytes": pushed_bytes - begin_bytes,
        "peak_bytes": peak_bytes,
        "sent_again_bytes": again.sent_bytes,
    }))

anyio.run(main)
"""


@contextmanager
def discarding_sink() -> Iterator[str]:
    """Run a registry that keeps nothing large, on a free loopback port."""
    with served(Sink(0, verifies=False)) as server:
        yield f"127.0.0.1:{server.server_address[1]}"


def write_sparse_model(directory: Path, size_bytes: int) -> Path:
    """Write a model of one shard whose weights are a hole in the file: it takes no disk."""
    write_model(directory)
    header = header_of({"layer.1": ("BF16", [size_bytes // 2])})
    with (directory / "model-00001-of-00001.safetensors").open("wb") as file:
        head = safetensors_bytes(header, b"")
        file.write(head)
        file.truncate(len(head) + size_bytes)
    return directory


async def test_a_push_costs_little_more_than_hashing_and_no_disk_and_64_mb(model: Path, base: str) -> None:
    write_sparse_model(model, MODEL_BYTES)
    with discarding_sink() as host:
        done = await anyio.run_process([sys.executable, "-c", _PUSH, str(model), base, host], stderr=None)
    cost = json.loads(done.stdout)
    assert cost["peak_bytes"] < 64_000_000, cost
    assert cost["written_bytes"] < 1_000_000, cost  # the cache's few entries
    assert cost["push_s"] < 3 * cost["hash_s"] + 0.2, cost  # alone, it is twice hashing; other work on the machine adds
    assert cost["again_s"] < 0.15 + cost["hash_s"] / 2, cost  # nothing is read
    assert cost["sent_again_bytes"] == 0


async def test_a_registry_that_goes_away_in_the_middle_and_comes_back(
    model: Path, base: str, repository: str, options: RegistryOptions, tmp_path: Path
) -> None:
    write_model(model, [5 * MIB] * 3)
    source, one_by_one = open_source(model), replace(options, uploads=1)
    storage = tmp_path / "registry"
    storage.mkdir()
    with running_registry(storage) as host, wire_to(host) as wire:
        wire.cut_after = 15 * MIB
        wire.on_cut = lambda: setattr(wire, "is_down", True)
        with pytest.raises(RegistryError, match="failed 3 times") as caught:
            await build_and_push(source, base, wire.host, repository, options=one_by_one)
        assert caught.value.next_command
    with running_registry(storage) as host:
        pushed = await build_and_push(source, base, host, repository, options=one_by_one)
        assert 20 * MIB < pushed.sent_bytes < 21 * MIB  # the first shard was there
        assert not [r for r in await verify_content(pushed.reference, options=options) if r.verdict is Verdict.FAIL]


_LAYOUT = """
import resource, sys
from pathlib import Path
import anyio
from servepath.errors import InputError
from servepath.modelcar.build import build_layout
from servepath.modelcar.source.directory import open_source

model, base, layout, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    anyio.run(build_layout, open_source(Path(model)), base, Path(layout))
except InputError as error:
    left = [path.name for path in Path(layout).rglob("*") if path.name.startswith(".partial")]
    print(error.what, error.next_command, left)
"""


async def run_layout(prefix: Sequence[str], model: Path, base: str, layout: Path, limit_bytes: int) -> str:
    command = [*prefix, sys.executable, "-c", _LAYOUT, str(model), base, str(layout), str(limit_bytes)]
    return (await anyio.run_process(command, stderr=None)).stdout.decode()


async def test_a_file_that_may_not_grow_is_said_and_leaves_nothing(model: Path, base: str, tmp_path: Path) -> None:
    write_model(model, [5 * MIB])
    said = await run_layout([], model, base, tmp_path / "out", 4 * MIB)
    assert said == f"cannot write: File too large df -h {tmp_path}/out/blobs/sha256 []\n"
    assert await run_layout([], model, base, tmp_path / "out", 0) == ""


async def test_a_full_disk_is_said_and_leaves_nothing(model: Path, base: str, tmp_path: Path) -> None:
    write_model(model, [5 * MIB])
    out = tmp_path / "out"
    out.mkdir()
    mount = f'mount -t tmpfs -o size=8m tmpfs {out} && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or (await anyio.run_process([*prefix, "true"], check=False)).returncode:
        pytest.skip("needs root on Linux, to mount a small file system")
    said = await run_layout(prefix, model, base, out, 0)
    assert said == f"cannot write: No space left on device df -h {out}/blobs/sha256 []\n"
