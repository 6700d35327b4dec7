from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

import pytest

from servepath.errors import InputError
from servepath.modelcar.source.directory import open_source
from tests.unit.modelcar.helpers import header_of, write_model, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_model_directory_is_read(tmp_path: Path) -> None:
    source = open_source(write_model(tmp_path / "m", [8, 16]))
    assert source.name == "Tiny-Llama"
    assert source.parameters == 24
    assert source.dtype == "BF16"
    assert source.licence == "Apache-2.0"
    assert source.files == tuple(sorted(source.files))
    assert "LICENSE" in source.files


def test_bookkeeping_and_excluded_files_are_left_out(model: Path) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "HEAD").write_text("x")
    (model / ".cache" / "huggingface").mkdir(parents=True)
    (model / "original").mkdir()
    (model / "original" / "consolidated.pth").write_bytes(b"x")
    files = open_source(model, exclude=["original/*"]).files
    assert not [name for name in files if name.startswith((".git", ".cache", "original"))]


def no_weights(model: Path) -> None:
    for path in model.glob("*.safetensors*"):
        path.unlink()


def pickle_beside(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x02")


def broken_header(model: Path) -> None:
    (model / "extra.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")


def missing_shard(model: Path) -> None:
    index = {"weight_map": {"layer.1": "model-00009.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def wrong_tensor(model: Path) -> None:
    index = {"weight_map": {"layer.7": "model-00001-of-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def index_without_map(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text("{}")


def index_escaping(model: Path) -> None:
    index = {"weight_map": {"layer.1": "../../etc/passwd"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def leaving_link(model: Path) -> None:
    (model.parent / "outside").write_text("secret")
    (model / "tokenizer.json").symlink_to("../outside")


def dangling_link(model: Path) -> None:
    (model / "tokenizer.json").symlink_to("nowhere")


def looping_link(model: Path) -> None:
    (model / "tokenizer.json").symlink_to("tokenizer.json")


def directory_link(model: Path) -> None:
    (model / "loop").symlink_to(".")


def whiteout(model: Path) -> None:
    (model / ".wh.config.json").write_text("")


def newline_name(model: Path) -> None:
    (model / "a\nb").write_text("")


def backslash_name(model: Path) -> None:
    (model / "..\\a").write_text("")


def no_utf8_name(model: Path) -> None:
    (model / os.fsdecode(b"a\xff")).write_text("")


def fifo(model: Path) -> None:
    os.mkfifo(model / "pipe")


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def broken_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def fake_gguf(model: Path) -> None:
    (model / "model.gguf").write_bytes(b"nope")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_weights, "no weights"),
        (pickle_beside, "pickle"),
        (broken_header, "not a usable safetensors"),
        (missing_shard, "shard that is missing"),
        (wrong_tensor, "tensor that its shard lacks"),
        (index_without_map, "no weight_map"),
        (index_escaping, "shard that is missing"),
        (leaving_link, "leaves the model directory"),
        (dangling_link, "dangling"),
        (looping_link, "dangling"),
        (directory_link, "link to a directory"),
        (whiteout, "deletes a file"),
        (newline_name, "control character"),
        (backslash_name, "backslash"),
        (no_utf8_name, "not UTF-8"),
        (fifo, "neither a file nor a directory"),
        (no_config, "no config.json"),
        (broken_config, "not JSON"),
        (fake_gguf, "not a GGUF"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_model_is_refused(model: Path, damage: Callable[[Path], None], message: str) -> None:
    open_source(model)  # good before
    damage(model)
    with pytest.raises(InputError, match=message) as caught:
        open_source(model)
    assert caught.value.where
    assert caught.value.expected


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        open_source(tmp_path / "nothing")


def test_a_file_that_this_user_cannot_read_is_refused(model: Path) -> None:
    (model / "config.json").chmod(0)
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)  # root reads everything
    try:
        with pytest.raises(InputError, match="cannot read: Permission denied") as caught:
            open_source(model)
    finally:
        os.seteuid(user)
    assert caught.value.expected


@pytest.mark.parametrize("header_bytes", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_begins_like_a_pickle_is_none(model: Path, header_bytes: int) -> None:
    header = json.dumps(header_of({"x": ("BF16", [1])})).ljust(header_bytes).encode()
    path = next(model.glob("*-00001-*.safetensors"))
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"ab")
    (model / "model.safetensors.index.json").unlink()
    assert path.name in open_source(model).files


def test_pickles_can_be_allowed(model: Path) -> None:
    pickle_beside(model)
    assert "pytorch_model.bin" in open_source(model, allow_pickle=True).files


def test_a_hub_cache_snapshot_is_followed_into_its_own_blobs_only(tmp_path: Path) -> None:
    repository = tmp_path / "models--example--tiny"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write_shard(blobs / "aaaa", "w", 8)
    (blobs / "bbbb").write_text('{"model_type": "llama"}')
    (snapshot / "model.safetensors").symlink_to("../../blobs/aaaa")
    (snapshot / "config.json").symlink_to("../../blobs/bbbb")
    assert open_source(snapshot).files == ("config.json", "model.safetensors")

    other = tmp_path / "models--example--other" / "blobs"
    other.mkdir(parents=True)
    (other / "cccc").write_text("{}")
    (snapshot / "tokenizer.json").symlink_to(other / "cccc")
    with pytest.raises(InputError, match="leaves the model directory"):
        open_source(snapshot)


def test_licences_and_notices_are_shipped(model: Path) -> None:
    """Patterns that choose files by their suffix lose what a licence asks to be passed on."""
    names = ("LICENSE", "LICENSE.txt", "LICENCE", "NOTICE", "USE_POLICY.md", "COPYING")
    for name in names:
        (model / name).write_text("terms")
    assert set(names) <= set(open_source(model).files)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# x", "Apache-2.0"),
        ("---\r\nlicense: MIT\r\n---\r\n", "MIT"),
        ("\ufeff---\nlicense: gpl-3.0\n---", "GPL-3.0-only"),
        ("---\nlicense: llama3.1\n---\n", "LicenseRef-llama3.1"),
        ("---\nlicense: other\nlicense_name: Qwen Research\n---\n", "LicenseRef-qwen-research"),
        ("---\nlicense: other\n---\n", ""),
        ("---\nlicense: unknown\n---\n", ""),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "MIT AND Apache-2.0"),
        ("---\nlicense: {a: 1}\n---\n", ""),
        ("---\nlicense: [\n---\n", ""),
        ("---\n- license\n---\n", ""),
        ("license: mit", ""),
        ("# card\n---\nlicense: mit\n---\n", ""),
        ("---\nlicense: 2024-99-99\n---\n", ""),
        ("---\n" + "[" * 5000 + "\n---\n", ""),
    ],
)
def test_the_licence_of_a_model_card(model: Path, card: str, licence: str) -> None:
    (model / "README.md").write_bytes(card.encode())
    assert open_source(model).licence == licence
