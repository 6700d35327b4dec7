"""Models larger than any disk here: planned over sparse files, in bounded memory, reading headers alone."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from servepath.modelcar.store import MAX_MANIFEST_BYTES
from tests.unit.modelcar.scale import Node, pull_s, scales, table, write_sparse_model

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
_PLAN = """
import resource, sys
from pathlib import Path
from servepath.modelcar.image.oci import BaseImage
from servepath.modelcar.plan import BuildOptions, plan_modelcar
from servepath.modelcar.source.directory import open_source
def peak_mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def read(): return int(dict(l.split(": ") for l in open("/proc/self/io").read().splitlines())["rchar"])
before, read_before = peak_mib(), read()
source = open_source(Path(sys.argv[1]))
plan = plan_modelcar(source, [BaseImage()], BuildOptions(reshard_bytes=int(sys.argv[2])))
size = sum(layer.size_bytes for layer in plan.layers)
print(size, len(plan.layers), read() - read_before, peak_mib() - before)
"""


@pytest.mark.parametrize("reshard_bytes", [0, 5_000_000_000])
async def test_280_gb_are_planned_in_bounded_memory(tmp_path: Path, reshard_bytes: int) -> None:
    """70 billion parameters in float32, in files full of holes."""
    model = write_sparse_model(tmp_path / "model", "F32")
    done = await anyio.run_process([sys.executable, "-c", _PLAN, str(model), str(reshard_bytes)])
    size, layers, read, memory_mib = (float(word) for word in done.stdout.split())
    assert size > 280e9
    assert 56 < layers <= 64
    assert read < 2e6
    assert memory_mib < 32


def test_the_table_in_the_documentation_is_what_is_planned(tmp_path: Path) -> None:
    rows = scales(write_sparse_model(tmp_path / "model"))
    assert sum(rows[1].layers) > 140e9
    assert len([size for size in rows[1].layers if size > 100e6]) == 30
    assert all(row.manifest_bytes < MAX_MANIFEST_BYTES / 100 for row in rows)
    assert table(rows) in (ROOT / "docs" / "modelcar.md").read_text("utf-8")


def test_a_pull_is_bounded_by_the_slower_of_network_and_unpacking() -> None:
    node = Node(downloads=2, stream_bytes_per_s=10, link_bytes_per_s=100, unpack_bytes_per_s=5)
    assert pull_s([100], node) == 30
    assert pull_s([50, 50], node) == 25
    assert pull_s([25] * 4, node) == 22.5
    assert pull_s([100], Node(1, 10, 5, 1e9)) == pytest.approx(20)
