"""A tiny random model that vLLM really serves, written in milliseconds without torch and without a network.

A Qwen2 of two layers with a tokenizer of single bytes. It answers with noise: use it to exercise a path, never to judge
an answer. Its head size is 64, because vLLM's CPU attention dies at the first request with 16.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

TINY_NAME = "tiny-random-qwen2"
HIDDEN, HEADS, KV_HEADS, HEAD_SIZE, INTERMEDIATE, LAYERS = 128, 2, 1, 64, 256, 2
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BYTE_TOKENS = 256
VOCABULARY = 320
"""Byte tokens and special tokens, rounded up to what kernels like."""

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CARD = "---\nlicense: apache-2.0\n---\n\n# Tiny random Qwen2\n\nRandom weights for tests, made by servepath.\n"
_ALIGNMENT = 8  # of the safetensors header, so that tensors are aligned


def write_tiny_model(directory: Path, seed: int = 0) -> None:
    """Write config, weights (0.6 MB, bfloat16) and tokenizer into a directory, which is made if it is missing.

    Args:
        directory: where to write; files of the same names are replaced.
        seed: of the random weights; the same seed gives the same bytes on every machine.
    """
    directory.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": _config(),
        "generation_config.json": {"bos_token_id": BYTE_TOKENS, "eos_token_id": BYTE_TOKENS + 2, "do_sample": False},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": _tokenizer_config(),
    }
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    (directory / "README.md").write_text(_CARD)
    (directory / "model.safetensors").write_bytes(_safetensors(seed))


def _config() -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": BYTE_TOKENS,
        "dtype": "bfloat16",
        "eos_token_id": BYTE_TOKENS + 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 4096,
        "model_type": "qwen2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    queries, keys = HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (HIDDEN,),
            f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
            f"{prefix}.self_attn.q_proj.weight": (queries, HIDDEN),
            f"{prefix}.self_attn.q_proj.bias": (queries,),
            f"{prefix}.self_attn.k_proj.weight": (keys, HIDDEN),
            f"{prefix}.self_attn.k_proj.bias": (keys,),
            f"{prefix}.self_attn.v_proj.weight": (keys, HIDDEN),
            f"{prefix}.self_attn.v_proj.bias": (keys,),
            f"{prefix}.self_attn.o_proj.weight": (HIDDEN, queries),
            f"{prefix}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
    return dict(sorted(shapes.items()))


def _safetensors(seed: int) -> bytes:
    generator = np.random.Generator(np.random.PCG64(seed))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, shape in _shapes().items():
        uniform = generator.random(shape) - 0.5  # exact on every machine, unlike a normal distribution
        values = np.ones(shape) if name.endswith("norm.weight") else uniform
        # bfloat16 is the upper half of a float32.
        bits = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [len(data), len(data) + len(bits)]}
        data += bits
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _byte_characters() -> list[str]:
    """The character that byte-level BPE writes for each byte: itself if it prints, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(BYTE_TOKENS, 2 * BYTE_TOKENS))
    return [chr(byte if byte in printable else next(others)) for byte in range(BYTE_TOKENS)]


def _tokenizer() -> dict[str, Any]:
    special = [
        {"id": BYTE_TOKENS + i, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, token in enumerate(SPECIAL_TOKENS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(_byte_characters())},
            "merges": [],
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL_TOKENS[0],
        "eos_token": SPECIAL_TOKENS[2],
        "pad_token": SPECIAL_TOKENS[0],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "chat_template": _CHAT_TEMPLATE,
    }
