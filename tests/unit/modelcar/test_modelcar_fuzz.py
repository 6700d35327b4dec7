"""Whatever a model directory or a layer holds, only errors of servepath come out, and soon."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from servepath.cli.app import app
from servepath.errors import InputError
from servepath.modelcar.checking.tarwalk import TarEntry, Window, walk
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.safetensors import Header
from servepath.modelcar.source.weight_map import check_weight_map
from tests.unit.modelcar import test_modelcar_source as damages
from tests.unit.modelcar.helpers import safetensors_bytes, write_model
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(
    [
        "config.json",
        "README.md",
        "a.safetensors",
        "model.safetensors.index.json",
        "x.gguf",
        "t.txt",
        "d",
        ".wh.x",
        "d/e",
    ]
) | st.binary(min_size=1, max_size=8).map(os.fsdecode).filter(
    lambda name: name not in {".", ".."} and "/" not in name and "\0" not in name
)
CONTENTS = (
    st.binary(max_size=64)
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: safetensors_bytes(value, b""))
    | st.text(max_size=64).map(lambda text: f"---\n{text}\n---\n".encode("utf-8", "replace"))
    | st.sampled_from(
        [b"GGUF", b"[" * 50_000, b"---\n" + b"[" * 5_000 + b"\n---\n", b"---\nlicense: 2024-99-99\n---\n"]
    )
)
THINGS = st.one_of(
    CONTENTS,
    st.sampled_from(["/etc/passwd", "..", ".", "config.json", "nowhere", "d/../../x"]),  # a link to it
    st.sampled_from([None]),  # a FIFO
)
slow = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def put(root: Path, name: str, thing: bytes | str | None) -> None:
    path = root / name
    with suppress(OSError):  # the file system takes no such name, or something is there
        path.parent.mkdir(parents=True, exist_ok=True)
        if thing is None:
            os.mkfifo(path)
        elif isinstance(thing, str):
            path.symlink_to(thing)
        else:
            path.write_bytes(thing)


@slow
@given(tree=st.dictionaries(NAMES, THINGS, max_size=6), is_whole=st.booleans())
def test_any_directory_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, tree: Any, is_whole: bool) -> None:  # noqa: FBT001 - hypothesis names it
    root = tmp_path_factory.mktemp("fuzz") / "m"
    if is_whole:
        write_model(root)
    root.mkdir(exist_ok=True)
    for name, thing in tree.items():
        with suppress(OSError):
            (root / name).unlink()
        put(root, name, thing)
    try:
        source = open_source(root)
    except InputError as error:
        assert error.where  # noqa: PT017 - every refusal says where
        return
    assert source.files
    assert all(
        (root / name).is_file() and (root / name).resolve().is_relative_to(root.resolve()) for name in source.files
    )


@slow
@given(value=JSON)
def test_any_index_is_taken_or_refused(value: Any) -> None:
    with suppress(InputError):
        check_weight_map(json.dumps(value).encode(), "x/model.safetensors.index.json", {"x/a": Header(2, ())})
    with suppress(InputError):
        check_weight_map(json.dumps({"weight_map": value}).encode(), "model.safetensors.index.json", {})


def entries_of(data: bytes) -> list[TarEntry]:
    async def read(start: int, length: int) -> bytes:
        return data[start : start + length]

    async def listed() -> list[TarEntry]:
        return [entry async for entry in walk(Window(read, len(data)), "layer")]

    return anyio.run(listed)


def good_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in (
            "models/config.json",
            "models/" + "long" * 40,
            "models/gr\N{LATIN SMALL LETTER O WITH DIAERESIS}sse",
        ):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return buffer.getvalue()


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(good_tar()) - 1), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, len(good_tar())),
)
def test_any_damage_of_a_tar_is_listed_or_refused(edits: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(good_tar())
    for position, byte in edits:
        data[position] = byte
        start = position - position % 512
        if byte % 2:  # with a checksum that fits, so that the damage is looked at
            block = data[start : start + 148] + b" " * 8 + data[start + 156 : start + 512]
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    with suppress(InputError):
        entries_of(bytes(data[:cut] if cut % 3 == 0 else data))


@pytest.mark.parametrize("record", [b"9" * 5000 + b" path=x\n", b"x path=y\n", b"99 path=y\n", b"0 a=b\n"])
def test_a_pax_record_that_lies_about_its_length_is_refused(record: bytes) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    block = info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)
    with pytest.raises(InputError, match="malformed PAX record"):
        entries_of(block + good_tar())


def huge_shape(model: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2**63] * 200_000, "data_offsets": [0, 0]}}
    (model / "extra.safetensors").write_bytes(safetensors_bytes(header, b""))


def huge_number(model: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[' + b"9" * 10_000 + b'],"data_offsets":[0,0]}}'
    (model / "extra.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def huge_config(model: Path) -> None:
    os.truncate(model / "config.json", 1 << 40)  # sparse


def huge_index(model: Path) -> None:
    os.truncate(model / "model.safetensors.index.json", 1 << 40)


def huge_header(model: Path) -> None:
    (model / "extra.safetensors").write_bytes((1 << 62).to_bytes(8, "little"))
    os.truncate(model / "extra.safetensors", 1 << 40)


def nested_config(model: Path) -> None:
    (model / "config.json").write_text('{"a":' * 200_000)


def pickle_in_disguise(model: Path) -> None:
    (model / "tokenizer.model").write_bytes(pickle.dumps({"a": 1}))


def torch_in_disguise(model: Path) -> None:
    with zipfile.ZipFile(model / "weights.dat", "w") as archive:
        archive.writestr("archive/data.pkl", b"")


def shouting_pickle(model: Path) -> None:
    (model / "MODEL.BIN").write_bytes(b"")


def device(model: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.mknod(model / "null", 0o20666, os.makedev(1, 3))


HOSTILE = (
    huge_shape,
    huge_number,
    huge_config,
    huge_index,
    huge_header,
    nested_config,
    pickle_in_disguise,
    torch_in_disguise,
    shouting_pickle,
    device,
)
DAMAGES = (
    damages.no_weights,
    damages.pickle_beside,
    damages.broken_header,
    damages.missing_shard,
    damages.leaving_link,
    damages.whiteout,
    damages.fifo,
    damages.no_config,
)


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda damage: damage.__name__)
def test_a_hostile_model_is_refused_in_a_moment(model: Path, damage: Callable[[Path], None]) -> None:
    damage(model)
    with pytest.raises(InputError) as caught:
        open_source(model)
    assert caught.value.expected
    assert len(str(caught.value)) < 2000


@contextmanager
def counting_server() -> Iterator[tuple[str, list[str]]]:
    """A registry that counts what it is asked and refuses everything."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

        def do_GET(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"127.0.0.1:{server.server_port}", seen


def test_a_bad_model_costs_no_request(tmp_path: Path) -> None:
    """Neither the registry nor the base's is asked for anything; a good model asks at once."""
    with counting_server() as (host, seen):
        base = f"{host}/base@sha256:{64 * '0'}"
        for number, damage in enumerate((*HOSTILE, *DAMAGES)):
            model = write_model(tmp_path / f"{number}" / "m")
            damage(model)
            arguments = ["modelcar", "--source", str(model), "--push", f"{host}/model", "--base-image", base]
            assert CliRunner().invoke(app, arguments).exit_code == 3, damage.__name__
        assert seen == []
        good = write_model(tmp_path / "good")
        arguments = ["modelcar", "--source", str(good), "--push", f"{host}/model", "--base-image", base]
        assert CliRunner().invoke(app, arguments).exit_code == 4
        assert seen
