"""What a model of 70 billion parameters comes to, planned for real over sparse files, pulled in simulation.

Run `python -m tests.unit.modelcar.scale` to print the table of docs/modelcar.md.
"""

from __future__ import annotations

import heapq
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servepath.modelcar.image.layers import LAYER_MEDIA_TYPE, LayerPlan
from servepath.modelcar.image.oci import BaseImage, config_descriptor, make_config, make_manifest
from servepath.modelcar.plan import BuildOptions, plan_modelcar
from servepath.modelcar.push.write_layers import describe_names
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.safetensors import DTYPE_BITS
from servepath.modelcar.store import Descriptor
from tests.unit.modelcar.helpers import header_of

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARD_BYTES = 5_000_000_000
BASE_BYTES = 2_200_000
"""busybox, as a gzip layer."""
DIGEST = f"sha256:{'0' * 64}"


def llama_70b() -> dict[str, tuple[int, ...]]:
    """Give the tensors of a Llama of 70 billion parameters: hidden 8192, 80 blocks, 64 heads, 8 of them for keys."""
    hidden, keys, inner, vocabulary = 8192, 1024, 28672, 128256
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for block in range(80):
        prefix = f"model.layers.{block}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.mlp.down_proj.weight": (hidden, inner),
            f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}.mlp.up_proj.weight": (inner, hidden),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.k_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}.self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}.self_attn.v_proj.weight": (keys, hidden),
        }
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def write_sparse_model(directory: Path, dtype: str = "BF16") -> Path:
    """Write the model as the Hub has it, in shards of at most 5 GB: real headers and index, holes for weights."""
    directory.mkdir(parents=True)
    groups: list[dict[str, tuple[str, tuple[int, ...]]]] = []
    left = 0
    for name, shape in llama_70b().items():
        size = math.prod(shape) * DTYPE_BITS[dtype] // 8
        if size > left:
            groups.append({})
            left = SHARD_BYTES
        groups[-1][name] = (dtype, shape)
        left -= size
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05}-of-{len(groups):05}.safetensors"
        header = header_of(group)
        encoded = json.dumps(header).encode()
        with (directory / name).open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            file.truncate(8 + len(encoded) + max(entry["data_offsets"][1] for entry in header.values()))
        weight_map |= dict.fromkeys(group, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer.json").write_bytes(bytes(9_000_000))
    return directory


@dataclass(frozen=True, slots=True)
class Node:
    """A node that pulls: containerd downloads some layers at a time, and unpacks them one after the other.

    Attributes:
        downloads: layers at a time; CRI's `max_concurrent_downloads` is 3.
        stream_bytes_per_s: what one connection to the registry gives.
        link_bytes_per_s: what the node's network gives.
        unpack_bytes_per_s: how fast the bytes of a layer are unpacked.
    """

    downloads: int = 3
    stream_bytes_per_s: float = 200e6
    link_bytes_per_s: float = 1.25e9
    unpack_bytes_per_s: float = 370e6


def pull_s(layers: Sequence[int], node: Node) -> float:
    """Simulate a pull and return its time in seconds: downloads in order, unpacking in order behind them."""
    rate = min(node.stream_bytes_per_s, node.link_bytes_per_s / node.downloads)
    free = [0.0] * node.downloads
    unpacked = 0.0
    for size in layers:
        done = heapq.heappop(free) + size / rate
        heapq.heappush(free, done)
        unpacked = max(unpacked, done) + size / node.unpack_bytes_per_s
    return unpacked


@dataclass(frozen=True, slots=True)
class Scale:
    """What one form comes to."""

    form: str
    layers: tuple[int, ...]
    manifest_bytes: int
    config_bytes: int
    pull_s: float


def scale_of(form: str, model: Path, build: BuildOptions) -> Scale:
    """Plan one form over the sparse model."""
    base = BaseImage((Descriptor(f"{LAYER_MEDIA_TYPE}+gzip", DIGEST, BASE_BYTES),), digest=DIGEST)
    plan = plan_modelcar(open_source(model), [base], build)
    plans = [layer for layer in plan.layers if isinstance(layer, LayerPlan)]
    sizes = tuple(layer.size_bytes for layer in plans)
    config = make_config(base, [(DIGEST, describe_names(layer.names)) for layer in plans], plan.images[0][1])
    descriptors = [Descriptor(LAYER_MEDIA_TYPE, DIGEST, size) for size in sizes]
    manifest = make_manifest(config_descriptor(config), (*base.layers, *descriptors), plan.annotations)
    return Scale(form, sizes, len(manifest.data), len(config), pull_s((BASE_BYTES, *sizes), Node()))


def scales(model: Path) -> list[Scale]:
    """Plan every form of the table."""
    return [
        scale_of("one layer for all", model, BuildOptions(own_layer_bytes=1 << 50)),
        scale_of("as it comes", model, BuildOptions()),
        scale_of("`--reshard 5GB`", model, BuildOptions(reshard_bytes=5_000_000_000)),
        scale_of("`--reshard 3GB`", model, BuildOptions(reshard_bytes=3_000_000_000)),
        scale_of("`--reshard 1GB`", model, BuildOptions(reshard_bytes=1_000_000_000)),
    ]


def table(rows: Sequence[Scale]) -> str:
    """Write the table in Markdown."""
    lines = [
        "| form | model layers | largest layer | manifest | config | pull, simulated | node disk, peak |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        total = sum(row.layers)
        lines.append(
            f"| {row.form} | {len(row.layers)} | {max(row.layers) / 1e9:.2f} GB | {row.manifest_bytes / 1e3:.1f} kB"
            f" | {row.config_bytes / 1e3:.1f} kB | {row.pull_s:.0f} s | {2 * total / 1e9:.0f} GB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(table(scales(write_sparse_model(Path(place) / "model"))))  # noqa: T201 - what the command is for
