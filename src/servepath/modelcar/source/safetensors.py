"""Read and check safetensors headers, without reading the tensors.

Format: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes. The rules checked here (a
header of at most 100 MB, offsets that cover the data without holes or overlaps) are those of the format's reference
implementation (https://github.com/huggingface/safetensors, `safetensors/src/tensor.rs`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeGuard

from msgspec import Struct, field

from servepath.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000

DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class Tensor(Struct, frozen=True):
    """One tensor: its name, type such as `BF16`, shape, and byte range in the data after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Header(Struct, frozen=True):
    """A checked header: its length in bytes without the 8 before it, the tensors in the order of their data, notes."""

    header_bytes: int
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)


def dtype_of(headers: Iterable[Header]) -> str:
    """Return the type that most elements have, such as `BF16`; empty without tensors."""
    counted = Counter[str]()
    for header in headers:
        for tensor in header.tensors:
            counted[tensor.dtype] += tensor.elements
    return max(sorted(counted), key=lambda dtype: counted[dtype], default="")


def read_header(path: Path, where: str = "") -> Header:
    """Read and check the header of a file.

    Args:
        path: a safetensors file.
        where: how to call the file in an error, its path by default.

    Raises:
        InputError: the header does not parse, is too large, or does not fit the file.
    """
    place = where or str(path)
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = header_length(file.read(LENGTH_BYTES), size_bytes, place)
        return parse_header(file.read(length), size_bytes, place)


def header_length(prefix: bytes, file_bytes: int, where: str) -> int:
    """Return the length in bytes of the JSON header, from the first 8 bytes of a file of `file_bytes`.

    Raises:
        InputError: the file is too short, or the header exceeds the bound or the file.
    """
    if len(prefix) < LENGTH_BYTES:
        raise _broken(where, f"the file has {len(prefix)} bytes", "at least 8 bytes of header length")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise _broken(where, f"the header claims {length} bytes", f"at most {MAX_HEADER_BYTES} bytes")
    if LENGTH_BYTES + length > file_bytes:
        raise _broken(where, f"the header claims {length} bytes, the file has {file_bytes}", "a header inside the file")
    return length


def parse_header(header: bytes, file_bytes: int, where: str) -> Header:
    """Check the JSON header of a file of `file_bytes` and return its tensors.

    Raises:
        InputError: not JSON of the expected form, or offsets that overlap, leave holes or pass the end of the file.
    """
    entries = _load_json(header, where)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(where, "__metadata__ is not a map of strings", "a map of strings to strings")
    tensors = sorted((_tensor(name, entry, where) for name, entry in entries.items()), key=lambda t: (t.begin, t.end))
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            kind = "overlaps the tensor before it" if tensor.begin < position else "leaves a hole before it"
            raise _broken(where, f"tensor {tensor.name!r} {kind}", f"data that begins at offset {position}")
        position = tensor.end
    data_bytes = file_bytes - LENGTH_BYTES - len(header)
    if position != data_bytes:
        relation = "past the end" if position > data_bytes else "before the end"
        raise _broken(
            where, f"the tensors end at {position}, {relation} of the file's {data_bytes} data bytes", "a complete file"
        )
    return Header(len(header), tuple(tensors), metadata)


def _load_json(header: bytes, where: str) -> dict[str, Any]:
    try:
        loaded = json.loads(header.decode("utf-8"), object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:
        raise _broken(where, f"the header does not parse: {str(error)[:200]}", "a JSON object") from error
    if not isinstance(loaded, dict):
        raise _broken(where, f"the header is a JSON {type(loaded).__name__}", "a JSON object")
    return loaded


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    loaded = dict(pairs)
    if len(loaded) != len(pairs):
        raise ValueError("a name appears twice")
    return loaded


def _tensor(name: str, entry: Any, where: str) -> Tensor:
    if not isinstance(entry, dict):
        raise _broken(where, f"tensor {name!r} is not an object", "dtype, shape and data_offsets")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _broken(where, f"tensor {name!r} has dtype {str(dtype)[:40]!r}", f"one of {', '.join(DTYPE_BITS)}")
    if not _is_sizes(shape):
        raise _broken(where, f"tensor {name!r} has shape {str(shape)[:80]}", "a list of sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004 - begin and end
        raise _broken(where, f"tensor {name!r} has data_offsets {str(offsets)[:80]}", "[begin, end] with begin <= end")
    if _overflows(shape):
        raise _broken(where, f"tensor {name!r} has shape {str(shape)[:80]}", "fewer than 2^64 elements")
    tensor = Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.elements * DTYPE_BITS[dtype] != (tensor.end - tensor.begin) * 8:
        raise _broken(
            where,
            f"tensor {name!r} has {tensor.end - tensor.begin} bytes",
            f"the bytes of {dtype} {list(tensor.shape)[:16]}",
        )
    return tensor


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
    """Tell whether the value is a list of integers that fit the format's unsigned 64 bits."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 64 for item in value)


def _overflows(shape: list[int]) -> bool:
    """Tell whether the product of the sizes leaves 64 bits on the way; a long list must not take a long time."""
    elements = 1
    for size in shape:
        elements *= size
        if elements >= 1 << 64:
            return True
    return False


def _broken(where: str, what: str, expected: str) -> InputError:
    return InputError(
        f"not a usable safetensors file: {what}",
        where=where,
        expected=expected,
        next_command="download or save the file again",
    )
