from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servepath.errors import InputError
from servepath.modelcar.source.safetensors import MAX_HEADER_BYTES, header_length, parse_header, read_header
from tests.unit.modelcar.helpers import header_of, safetensors_bytes

if TYPE_CHECKING:
    from pathlib import Path

GOOD = header_of({"a": ("BF16", [2, 3]), "b": ("F32", []), "c": ("I8", [0])})
GOOD_DATA = bytes(16)


def parse(header: Any, data_bytes: int = len(GOOD_DATA)) -> Any:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return parse_header(encoded, 8 + len(encoded) + data_bytes, "model.safetensors")


def test_a_good_header_gives_its_tensors_and_parameters(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(GOOD | {"__metadata__": {"format": "pt"}}, GOOD_DATA))
    header = read_header(path)
    assert [(t.name, t.dtype, t.shape, t.begin, t.end) for t in header.tensors] == [
        ("a", "BF16", (2, 3), 0, 12),
        ("b", "F32", (), 12, 16),
        ("c", "I8", (0,), 16, 16),
    ]
    assert header.parameters == 7


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "does not parse"),
        (b"\xff\xfe", "does not parse"),
        (b"[" * 100_000, "does not parse"),
        (b"[]", "JSON list"),
        (b'{"a":{},"a":{}}', "appears twice"),
        ({"a": 1}, "not an object"),
        ({"__metadata__": {"x": 1}}, "__metadata__"),
        (GOOD | {"a": GOOD["a"] | {"dtype": "X9"}}, "dtype 'X9'"),
        (GOOD | {"a": GOOD["a"] | {"dtype": ["BF16"]}}, "dtype"),
        (GOOD | {"a": GOOD["a"] | {"shape": [-1, 3]}}, "shape"),
        (GOOD | {"a": GOOD["a"] | {"shape": [True, 3]}}, "shape"),
        (GOOD | {"a": GOOD["a"] | {"shape": [2, 2]}}, "has 12 bytes"),
        (GOOD | {"a": GOOD["a"] | {"data_offsets": [12, 0]}}, "data_offsets"),
        (GOOD | {"a": GOOD["a"] | {"data_offsets": [0]}}, "data_offsets"),
        (GOOD | {"b": GOOD["b"] | {"data_offsets": [8, 12]}}, "overlaps"),
        (GOOD | {"b": GOOD["b"] | {"data_offsets": [14, 18]}}, "hole"),
        (GOOD | {"d": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]}}, "past the end"),
        ({"a": GOOD["a"]}, "before the end"),
    ],
)
def test_a_broken_header_is_refused(header: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(header)
    assert caught.value.where == "model.safetensors"
    assert caught.value.expected
    assert caught.value.next_command


@pytest.mark.parametrize(
    ("prefix", "file_bytes", "message"),
    [
        (b"\1\2\3", 3, "has 3 bytes"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1), 1 << 40, "claims"),
        (struct.pack("<Q", 100), 50, "the file has 50"),
    ],
)
def test_a_header_length_outside_its_bounds_is_refused(prefix: bytes, file_bytes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        header_length(prefix, file_bytes, "model.safetensors")


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 400), insert=st.binary(max_size=4))
def test_a_damaged_file_is_refused_or_still_consistent(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, cut: int, insert: bytes
) -> None:
    """No damage gives a traceback, and what is accepted covers the file exactly."""
    good = bytearray(safetensors_bytes(GOOD, GOOD_DATA))
    good[position % len(good)] = byte
    damaged = bytes(good[: len(good) - cut % 3]) + insert if cut % 2 else bytes(good)
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged)
    try:
        header = read_header(path)
    except InputError:
        return
    end = max((tensor.end for tensor in header.tensors), default=0)
    assert 8 + header.header_bytes + end == len(damaged)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_refused_or_accepted_without_a_traceback(value: Any) -> None:
    try:
        parse(value, 0)
    except InputError as error:
        assert error.expected  # noqa: PT017 - every refusal says what was expected
