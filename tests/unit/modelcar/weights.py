"""Weights for tests of resharding: a real model's layout at small scale, and readers that are not ours."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from safetensors import deserialize, safe_open

from servepath.modelcar.layout import Layout
from tests.unit.modelcar.helpers import extract, header_of, safetensors_bytes, write_model

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

SCALE = 8
"""Every length of Qwen2.5-0.5B is divided by this, so every matrix by its square."""


def qwen_shapes() -> dict[str, tuple[int, ...]]:
    """Give the tensors of Qwen2.5-0.5B (its config.json: hidden 896, 24 blocks, 14 heads, 2 of them for keys)."""
    hidden, keys, inner, vocabulary = 896 // SCALE, 128 // SCALE, 4864 // SCALE, 151936 // SCALE
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for block in range(24):
        prefix = f"model.layers.{block}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.mlp.down_proj.weight": (hidden, inner),
            f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}.mlp.up_proj.weight": (inner, hidden),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.k_proj.bias": (keys,),
            f"{prefix}.self_attn.k_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}.self_attn.q_proj.bias": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}.self_attn.v_proj.bias": (keys,),
            f"{prefix}.self_attn.v_proj.weight": (keys, hidden),
        }
    return shapes | {"model.norm.weight": (hidden,)}


def tensor_bytes(name: str, count: int) -> bytes:
    """Give bytes that differ from tensor to tensor, the same on every machine."""
    return hashlib.shake_128(name.encode()).digest(count)


def write_weights(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], **metadata: str) -> None:
    """Write a safetensors file: name -> (type, shape, bytes)."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    header |= header_of({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()})
    path.write_bytes(safetensors_bytes(header, b"".join(data for _, _, data in tensors.values())))


def write_qwen(directory: Path, merged: Collection[str] = ()) -> Path:
    """Write the scaled model as one file; the projections in `merged` have other values, as after a LoRA merge."""
    write_model(directory)
    for path in directory.glob("model*"):
        path.unlink()
    tensors = {}
    for name, shape in qwen_shapes().items():
        count = 2
        for length in shape:
            count *= length
        changed = name.endswith(tuple(f"{projection}.weight" for projection in merged)) if merged else False
        tensors[name] = ("BF16", shape, tensor_bytes(f"{name}+lora" if changed else name, count))
    write_weights(directory / "model.safetensors", tensors, format="pt")
    return directory


async def unpack(layout: Path, digest: str, into: Path) -> Path:
    """Unpack an image's layers with tar and return its model directory."""
    for layer in (await Layout(layout).read_manifest(digest)).json["layers"]:
        extract(layout / "blobs" / layer["digest"].replace(":", "/"), into)
    return into / "models"


def tensors_in(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Read a file with the safetensors library."""
    return {
        name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
        for name, tensor in deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    }


def metadata_in(path: Path) -> dict[str, str]:
    """Read a file's __metadata__ with the safetensors library."""
    with safe_open(path, framework="np") as opened:
        return dict(opened.metadata() or {})
