"""The index of a sharded model, `*.safetensors.index.json`: which tensor is in which shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.errors import InputError
from servepath.modelcar.store import load_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servepath.modelcar.source.safetensors import Header

INDEX_SUFFIX = ".safetensors.index.json"
MAX_INDEX_BYTES = 64 << 20


def check_weight_map(data: bytes, file: str, headers: Mapping[str, Header]) -> int:
    """Check that every tensor of an index is in the shard that the index names; return how many there are.

    Args:
        data: the index.
        file: its path, relative to the model.
        headers: headers of the model's safetensors files, by such paths.

    Raises:
        InputError: not an index, or it names a shard or a tensor that is not there.
    """
    weight_map = load_object(data, file).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise InputError("the index has no weight_map", where=file, expected="a map from tensor to shard")
    folder = file.rpartition("/")[0]
    tensors_of: dict[str, frozenset[str]] = {}
    for shard in sorted(set(weight_map.values())):
        header = headers.get(f"{folder}/{shard}" if folder else shard)
        if header is None:
            raise InputError(
                f"the index names a shard that is missing: {shard!r}",
                where=file,
                expected="every shard beside its index",
                next_command="download the missing shard",
            )
        tensors_of[shard] = frozenset(tensor.name for tensor in header.tensors)
    for tensor, shard in weight_map.items():
        if tensor not in tensors_of[shard]:
            raise InputError(
                f"the index names a tensor that its shard lacks: {tensor!r}",
                where=file,
                expected=f"the tensor in {shard!r}",
                next_command="download the index and the shards of one revision",
            )
    return len(weight_map)
