"""A body: what it gives to a sink and what it hashes beside that are the same bytes, whatever the steps."""

from __future__ import annotations

import hashlib
import os
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servepath.errors import InputError
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.image.layers import VirtualFile, plan_layer
from servepath.modelcar.push import body as body_module
from servepath.modelcar.push.body import FileBody

if TYPE_CHECKING:
    from pathlib import Path


class Collected:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def write_file(self, file: IO[bytes], offset: int, size_bytes: int) -> int:
        data = os.pread(file.fileno(), size_bytes, offset)
        self.data += data
        return len(data)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("files")
    paths = [directory / f"{number}" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(hashlib.shake_128(bytes([number])).digest(7_000 * number + 3))
    return paths


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "WINDOW_BYTES", 1000)
    monkeypatch.setattr(body_module, "BUFFER_BYTES", 300)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20_000), max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_what_is_sent_is_what_is_hashed(files: list[Path], steps: list[int], is_sent: list[bool]) -> None:
    plan = plan_layer({path.name: path for path in files} | {"between": VirtualFile((b"x" * 3000,))})
    whole = b"".join(plan.read())
    body, collected, expected = FileBody(plan, is_hashed=True), Collected(), bytearray()
    positions: list[int] = []
    for step, sends in zip(steps, is_sent, strict=False):
        size_bytes = min(step, len(whole) - body.position)
        expected += whole[body.position : body.position + size_bytes] if sends else b""
        body.move(size_bytes, collected if sends else None, positions.append)
    expected += whole[body.position :]
    body.move(None, collected, positions.append)
    assert collected.data == expected
    assert body.digest == digest_of_bytes(whole)
    assert positions == sorted(positions)
    assert body.position == len(whole)


def test_a_file_that_shrinks_while_it_is_hashed_ends_the_body(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 20_000)
    body, collected = FileBody(plan_layer({"x": path}), is_hashed=True), Collected()
    body.move(5000, collected, lambda _: None)
    os.truncate(path, 6000)
    with pytest.raises(InputError, match="changed while it was read"):
        body.move(None, collected, lambda _: None)
