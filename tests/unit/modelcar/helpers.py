"""Small models and broken files, made from nothing, the same on every machine."""

from __future__ import annotations

import json
import math
import struct
import subprocess
from typing import TYPE_CHECKING, Any

from servepath.modelcar.image.layers import plan_layer
from servepath.modelcar.image.oci import BaseImage, ImageMetadata
from servepath.modelcar.layout import Layout
from servepath.modelcar.push.write import write_image
from servepath.modelcar.source.safetensors import DTYPE_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MIB = 1 << 20


def header_of(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> dict[str, Any]:
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    return header


def safetensors_bytes(header: Any, data: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def write_shard(path: Path, name: str, elements: int, fill: bytes = b"\x01\x02\x03\x04") -> None:
    """Write a safetensors file with one BF16 tensor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (fill * (elements * 2 // len(fill) + 1))[: elements * 2]
    path.write_bytes(safetensors_bytes(header_of({name: ("BF16", [elements])}), data))


def write_model(directory: Path, shards: Sequence[int] = (64,)) -> Path:
    """Write a model of shards with that many BF16 elements each, and the small files around them."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "_name_or_path": "example/Tiny-Llama"}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text('{"temperature": 0.7}')
    (directory / "LICENSE").write_text("Apache License\n")
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    weight_map = {}
    for number, elements in enumerate(shards, 1):
        shard = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(directory / shard, f"layer.{number}", elements, bytes([number, 2, 3, 4]))
        weight_map[f"layer.{number}"] = shard
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


async def write_base(directory: Path) -> str:
    """Write a base image with an entrypoint, which a modelcar must not inherit; return how to name it."""
    root = directory / "root"
    root.mkdir(parents=True)
    (root / "sh").write_text("#!not really\n")
    metadata = ImageMetadata(config={"Entrypoint": ["/entry"], "Cmd": ["sh"], "Env": ["PATH=/bin"]})
    layer = plan_layer({"bin/sh": root / "sh"}, executables=["bin/sh"])
    written = await write_image(Layout(directory / "layout"), BaseImage(), [layer], metadata)
    # `make_config` drops entrypoints of bases only, so this image keeps its own
    return f"oci:{directory / 'layout'}@{written.document.digest}"


def extract(layer: Path, into: Path) -> None:
    """Unpack a layer with tar. Debian 12's own Python, 3.11.2, has no tarfile that keeps members inside a folder."""
    into.mkdir(exist_ok=True)
    subprocess.run(["tar", "--extract", f"--file={layer}", f"--directory={into}"], check=True)
