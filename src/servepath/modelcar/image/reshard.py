"""Cut safetensors weights anew at tensor boundaries, without writing them: the new shards exist in the image alone.

The rule, which depends on names, types and shapes but on no value, so that a fine-tune is cut like its base model:

1. Tensors are grouped by role: embeddings (with the output head), feed-forward, and attention (with all the rest). A
   merged LoRA adapter changes a few projections of every block; it then changes the shards of one role, where shards
   cut block by block would all change.
2. Within a role tensors are in order of name, numbers by value, whatever files they came in.
3. A role is cut into the fewest shards of at most the given size, as even as their number allows. A larger tensor is
   alone in its shard.

In a shard the widest types come first, as safetensors' own writer has them, so that every tensor is aligned. Engines
find tensors by name through the index; neither the order nor the number of shards counts.
"""

from __future__ import annotations

import json
import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from servepath.errors import InputError
from servepath.modelcar.content import FileRange
from servepath.modelcar.image.layers import VirtualFile
from servepath.modelcar.image.partition import cut_by_limit
from servepath.modelcar.source.safetensors import DTYPE_BITS, LENGTH_BYTES, Tensor, read_header
from servepath.modelcar.store import load_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ALIGNMENT = 8
_EMBEDDINGS = re.compile(r"embed|(^|\.)(wte|wpe|lm_head)\.|^output\.weight$")
_FEED_FORWARD = re.compile(
    r"mlp|ffn|feed_?forward|expert|moe|dense_(h_to_4h|4h_to_h)|(^|\.)(fc\d?|fc_(in|out)|w[123]|(gate|up|down)_proj)\."
)


class Role(IntEnum):
    """What a tensor does in the model; the order is that of the shards."""

    EMBEDDINGS = 0
    FEED_FORWARD = 1
    ATTENTION = 2


class PlacedTensor(Struct, frozen=True):
    """A tensor and where its bytes lie on disk."""

    tensor: Tensor
    source: FileRange


def reshard(directory: Path, files: Sequence[str], shard_bytes: int) -> dict[str, Path | VirtualFile]:
    """Return the files of a model whose weights are cut anew; reads headers only.

    The weights are those that `model.safetensors.index.json` names, or `model.safetensors`. Everything else stays.

    Args:
        directory: a validated model directory.
        files: its files, as relative POSIX paths.
        shard_bytes: the most bytes of tensors in a shard.

    Raises:
        InputError: there is nothing to cut, or the shards contradict each other.
    """
    index = load_object((directory / INDEX).read_bytes(), INDEX) if INDEX in files else {}
    old = sorted(set(index["weight_map"].values())) if index else [SINGLE]
    if not set(old) <= set(files):
        raise InputError(
            "no weights that can be cut anew",
            where=str(directory),
            expected=f"{INDEX}, or {SINGLE}",
            next_command="leave out --reshard",
        )
    tensors, metadata = _read_all(directory, old)
    groups = cut(tensors, shard_bytes)
    kept: dict[str, Path | VirtualFile] = {name: directory / name for name in files if name not in {*old, INDEX}}
    new: dict[str, Path | VirtualFile] = {}
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05}-of-{len(groups):05}.safetensors"
        new[name] = make_shard(group, metadata)
        weight_map |= {placed.tensor.name: name for placed in group}
    taken = sorted(kept.keys() & new.keys())
    if taken:
        raise InputError(
            f"a file has the name of a new shard: {taken[0]}",
            where=str(directory),
            expected=f"no such file beside {', '.join(old[:3])}",
            next_command="remove or exclude it",
        )
    total_bytes = sum(placed.source.size_bytes for placed in tensors)
    notes = index.get("metadata")
    notes = (notes if isinstance(notes, dict) else {}) | {"total_size": total_bytes}
    document = index | {"metadata": notes, "weight_map": weight_map}
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"  # as the Hub's libraries write it
    return kept | new | {INDEX: VirtualFile((text.encode(),))}


def role_of(name: str) -> Role:
    """Tell a tensor's role from its name."""
    if _EMBEDDINGS.search(name):
        return Role.EMBEDDINGS
    return Role.FEED_FORWARD if _FEED_FORWARD.search(name) else Role.ATTENTION


def cut(tensors: Iterable[PlacedTensor], shard_bytes: int) -> list[list[PlacedTensor]]:
    """Return the tensors of each shard, by the rule above."""
    ordered = sorted(tensors, key=lambda placed: (natural_key(placed.tensor.name), placed.tensor.name))
    shards: list[list[PlacedTensor]] = []
    for role in Role:
        row = [placed for placed in ordered if role_of(placed.tensor.name) is role]
        groups = cut_by_limit([placed.source.size_bytes for placed in row], shard_bytes)
        shards += [[row[position] for position in group] for group in groups]
    return shards


def natural_key(name: str) -> list[str | int]:
    """Return a sorting key in which `layers.2` comes before `layers.10`."""
    pieces = re.split(r"([0-9]+)", name)  # text and digits by turns
    return [int(piece) if position % 2 else piece for position, piece in enumerate(pieces)]


def make_shard(tensors: Iterable[PlacedTensor], metadata: Mapping[str, str]) -> VirtualFile:
    """Make a safetensors file of a header and parts of other files."""
    ordered = sorted(tensors, key=lambda placed: -DTYPE_BITS[placed.tensor.dtype])  # stable: names stay in order
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    ranges: list[FileRange] = []
    position = 0
    for placed in ordered:
        tensor, end = placed.tensor, position + placed.source.size_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [position, end]}
        position = end
        _append(ranges, placed.source)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return VirtualFile((len(text).to_bytes(LENGTH_BYTES, "little") + text, *ranges))


def _append(ranges: list[FileRange], part: FileRange) -> None:
    """Append a part, joined with the last one where it goes on in the same file."""
    if ranges and ranges[-1].path == part.path and ranges[-1].offset + ranges[-1].size_bytes == part.offset:
        last = ranges.pop()
        part = FileRange(part.path, last.offset, last.size_bytes + part.size_bytes, part.file_bytes)
    ranges.append(part)


def _read_all(directory: Path, names: Sequence[str]) -> tuple[list[PlacedTensor], dict[str, str]]:
    placed: dict[str, PlacedTensor] = {}
    metadata: dict[str, str] = {}
    for name in names:
        path = directory / name
        header, file_bytes = read_header(path, name), path.stat().st_size
        for key, value in header.metadata.items():
            if metadata.setdefault(key, value) != value:
                raise _contradiction(f"the shards disagree on __metadata__ {key!r}", name)
        for tensor in header.tensors:
            if tensor.name in placed:
                raise _contradiction(f"two shards hold the tensor {tensor.name!r}", name)
            offset = LENGTH_BYTES + header.header_bytes + tensor.begin
            part = FileRange(path, offset, tensor.end - tensor.begin, file_bytes)
            placed[tensor.name] = PlacedTensor(tensor, part)
    return list(placed.values()), metadata


def _contradiction(what: str, where: str) -> InputError:
    return InputError(what, where=where, expected="shards of one model", next_command="leave out --reshard")
