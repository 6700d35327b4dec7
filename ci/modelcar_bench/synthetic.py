"""A model with the tensors of Qwen2.5-0.5B and random weights: as large as the real one, and as hard to compress."""

from __future__ import annotations

import json
import math
import random
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    _Named = tuple[str, list[int]]

HIDDEN, INNER, KEYS, VOCABULARY, LAYERS = 896, 4864, 128, 151_936, 24
_BF16_BYTES = 2
_CHUNK_BYTES = 8 << 20
# Names and sizes of the files beside the weights, as Qwen/Qwen2.5-0.5B-Instruct has them.
_SMALL_FILES = {
    "LICENSE": 11_343,
    "README.md": 4_917,
    "merges.txt": 1_671_839,
    "tokenizer.json": 7_031_645,
    "tokenizer_config.json": 7_305,
    "vocab.json": 2_776_833,
}
GENERATION_CONFIG = "generation_config.json"


def write_model(directory: Path, layers: int = LAYERS, vocabulary: int = VOCABULARY, shards: int = 1) -> int:
    """Write the model and return its size in bytes; the same bytes on every machine.

    Args:
        directory: where to; made if missing.
        layers: number of transformer blocks: 24 give the real model's 988 MB of weights.
        vocabulary: rows of the embedding.
        shards: number of files that the weights are in, about as large as each other; several have an index.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": HIDDEN,
        "model_type": "qwen2",
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    set_temperature(directory, 0.7)
    source = random.Random(42)  # noqa: S311 - the same bytes in each run are what is wanted
    for name, size_bytes in _SMALL_FILES.items():
        (directory / name).write_bytes(source.randbytes(size_bytes // 2).hex().encode())
    parts = _parts(list(_tensors(layers, vocabulary)), shards)
    names = [_name(number, len(parts)) for number in range(1, len(parts) + 1)]
    if shards > 1:
        weight_map = {tensor: name for name, part in zip(names, parts, strict=True) for tensor, _ in part}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for name, part in zip(names, parts, strict=True):
        _write_weights(directory / name, part, source)
    return sum(path.stat().st_size for path in directory.iterdir())


def set_temperature(directory: Path, temperature: float) -> None:
    """Write `generation_config.json`: the small change that is pushed after everything else was."""
    (directory / GENERATION_CONFIG).write_text(json.dumps({"do_sample": True, "temperature": temperature}))


def _name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _parts(tensors: Sequence[_Named], count: int) -> list[list[_Named]]:
    """Cut the tensors, in their order, into so many parts of about one size."""
    left_bytes = sum(_size_bytes(shape) for _, shape in tensors)
    parts: list[list[_Named]] = [[]]
    part_bytes = 0
    for name, shape in tensors:
        if part_bytes and part_bytes + _size_bytes(shape) / 2 > left_bytes / (count - len(parts) + 1):
            left_bytes, part_bytes = left_bytes - part_bytes, 0
            parts.append([])
        parts[-1].append((name, shape))
        part_bytes += _size_bytes(shape)
    return parts


def _size_bytes(shape: list[int]) -> int:
    return _BF16_BYTES * math.prod(shape)


def _write_weights(path: Path, tensors: Sequence[_Named], source: random.Random) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors:
        size_bytes = _size_bytes(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size_bytes]}
        offset += size_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, offset, _CHUNK_BYTES):
            file.write(source.randbytes(min(_CHUNK_BYTES, offset - start)))


def _tensors(layers: int, vocabulary: int) -> Iterator[_Named]:
    yield "model.embed_tokens.weight", [vocabulary, HIDDEN]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", [HIDDEN]
        yield f"{prefix}.mlp.down_proj.weight", [HIDDEN, INNER]
        yield f"{prefix}.mlp.gate_proj.weight", [INNER, HIDDEN]
        yield f"{prefix}.mlp.up_proj.weight", [INNER, HIDDEN]
        yield f"{prefix}.post_attention_layernorm.weight", [HIDDEN]
        for name, rows in (("k", KEYS), ("q", HIDDEN), ("v", KEYS)):
            yield f"{prefix}.self_attn.{name}_proj.bias", [rows]
            yield f"{prefix}.self_attn.{name}_proj.weight", [rows, HIDDEN]
        yield f"{prefix}.self_attn.o_proj.weight", [HIDDEN, HIDDEN]
    yield "model.norm.weight", [HIDDEN]
