"""The instrument that compares pushes: its sinks, its counters, its model and its arithmetic."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import httpx
import pytest

from ci.modelcar_bench import measured, results, synthetic
from ci.modelcar_bench.experiment import Run, Step
from ci.modelcar_bench.measured import Cost
from ci.modelcar_bench.sink import Sink
from servepath.errors import CheckFailedError
from servepath.modelcar.source.directory import open_source
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["discard", "verify"])
def sink(request: pytest.FixtureRequest) -> Iterator[tuple[str, httpx.Client]]:
    with (
        served(Sink(0, verifies=request.param == "verify")) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", trust_env=False) as client,
    ):
        yield request.param, client


def upload(client: httpx.Client, digest: str, parts: list[bytes]) -> httpx.Response:
    location = client.post("/v2/a/blobs/uploads/").headers["Location"]
    for part in parts[:-1]:
        location = client.patch(location, content=part).headers["Location"]
    return client.put(location, params={"digest": digest}, content=iter([parts[-1]]))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_blob_in_parts_is_there_afterwards(sink: tuple[str, httpx.Client]) -> None:
    _, client = sink
    data = os.urandom(300_000)
    assert client.head(f"/v2/a/blobs/{digest_of(data)}").status_code == 404
    assert upload(client, digest_of(data), [data[:1], data[1:70_000], data[70_000:]]).status_code == 201
    found = client.get(f"/v2/a/blobs/{digest_of(data)}")
    assert found.content == data
    assert client.head(f"/v2/b/blobs/{digest_of(data)}").status_code == 404


def test_only_the_verifying_sink_refuses_other_bytes(sink: tuple[str, httpx.Client]) -> None:
    kind, client = sink
    status = upload(client, digest_of(b"this"), [b"that"]).status_code
    assert status == (400 if kind == "verify" else 201)


def test_a_manifest_is_found_by_tag_and_digest(sink: tuple[str, httpx.Client]) -> None:
    _, client = sink
    manifest = json.dumps({"subject": {"digest": "sha256:x"}}).encode()
    stored = client.put("/v2/a/manifests/v1", content=manifest, headers={"Content-Type": "a/b"})
    assert stored.headers["OCI-Subject"] == "sha256:x"
    for reference in ("v1", digest_of(manifest)):
        found = client.get(f"/v2/a/manifests/{reference}")
        assert (found.content, found.headers["Content-Type"]) == (manifest, "a/b")
    assert client.get("/v2/a/manifests/v2").status_code == 404


def run_python(code: str, folder: Path) -> Cost:
    environment = {"PATH": os.environ["PATH"]}
    return measured.run([sys.executable, "-c", code], directory=folder, environment=environment, log=folder / "log")


def test_a_command_is_charged_for_what_its_child_does(tmp_path: Path) -> None:
    child = (
        "import os; bytearray(200_000_000); x = sum(range(20_000_000)); open('f', 'wb').write(os.urandom(10_000_000))"
    )
    cost = run_python(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)", tmp_path
    )
    idle = run_python("pass", tmp_path)
    assert cost.cpu_s > idle.cpu_s + 0.1
    assert cost.wall_s > idle.wall_s
    assert cost.memory_bytes > 200_000_000
    assert idle.written_bytes < 1_000_000


def test_a_command_is_not_charged_for_the_memory_of_its_starter(tmp_path: Path) -> None:
    ballast = bytearray(os.urandom(1)) * 100_000_000
    assert run_python("pass", tmp_path).memory_bytes < 20_000_000 < len(ballast)


def test_bytes_written_to_a_disk_are_counted(tmp_path: Path) -> None:
    if os.statvfs(tmp_path).f_fsid == os.statvfs("/dev/shm").f_fsid:  # noqa: S108
        pytest.skip("the test's folder is in memory, which counts as no disk")
    cost = run_python("import os; open('f', 'wb').write(os.urandom(10_000_000))", tmp_path)
    assert 10_000_000 <= cost.written_bytes < 11_000_000


def test_a_command_that_fails_says_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="status 3: no such thing"):
        run_python("print('first'); print('no such thing'); raise SystemExit(3)", tmp_path)


def test_the_model_is_the_same_each_time_and_its_header_fits(tmp_path: Path) -> None:
    sizes = [synthetic.write_model(tmp_path / name, layers=1, vocabulary=100) for name in ("a", "b")]
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert sizes[0] == sizes[1]
    assert first == second
    (length,) = struct.unpack("<Q", first[:8])
    header = json.loads(first[8 : 8 + length])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert 8 + length + max(ends) == len(first)


def test_shards_hold_the_same_tensors_in_files_of_about_one_size(tmp_path: Path) -> None:
    synthetic.write_model(tmp_path / "one", layers=8, vocabulary=1000)
    synthetic.write_model(tmp_path / "four", layers=8, vocabulary=1000, shards=4)
    one, four = open_source(tmp_path / "one"), open_source(tmp_path / "four")
    assert one.parameters == four.parameters
    sizes = [(tmp_path / "four" / name).stat().st_size for name in four.files if name.endswith(".safetensors")]
    assert len(sizes) == 4
    assert max(sizes) < 1.5 * min(sizes)


def cost(wall_s: float) -> Cost:
    return Cost(wall_s, wall_s / 2, 50_000_000, 0)


def test_a_ratio_is_taken_within_its_round() -> None:
    runs = [
        Run(tool, "sink", Step.FIRST, number, cost(wall_s))
        for tool, walls_s in (("peer", (2.0, 30.0)), ("servepath", (1.0, 10.0)))
        for number, wall_s in enumerate(walls_s)
    ]
    ours, peer = results.rows(runs, "sink", Step.FIRST)
    assert (ours.tool, ours.ratios) == ("servepath", (1.0, 1.0))
    assert (peer.tool, peer.ratios) == ("peer", (2.0, 3.0))
    page = results.markdown(runs, 10**9, "a machine", "make x")
    assert "| peer | 16.00 (2.00-30.00) | 2.50 (2.00-3.00) | 8.00 | 50 | 0.0 |" in page
    drawing = ET.fromstring(results.svg(runs))  # noqa: S314 - our own output
    assert len(drawing.findall("{http://www.w3.org/2000/svg}circle")) == len(runs)
