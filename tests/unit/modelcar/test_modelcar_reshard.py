"""Resharding: bit-identical, aligned, the same however the weights came, and good for fine-tunes."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ci.node.tiny_model import write_tiny_model
from servepath.errors import InputError
from servepath.modelcar.build import build_and_push, build_layout
from servepath.modelcar.content import digest_of
from servepath.modelcar.image.layers import VirtualFile, plan_layer
from servepath.modelcar.image.partition import cut_by_count, cut_by_limit
from servepath.modelcar.image.reshard import INDEX, Role, natural_key, reshard, role_of
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.safetensors import DTYPE_BITS, LENGTH_BYTES, read_header
from tests.unit.modelcar.helpers import write_model
from tests.unit.modelcar.weights import (
    SCALE,
    metadata_in,
    qwen_shapes,
    tensor_bytes,
    tensors_in,
    unpack,
    write_qwen,
    write_weights,
)

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio
SCALED = BuildOptions(reshard_bytes=500_000_000 // SCALE**2, own_layer_bytes=(8 << 20) // SCALE**2)


def contents(directory: Path, shard_bytes: int) -> dict[str, bytes]:
    """Reshard, and write every file out as the image would hold it."""
    files = reshard(directory, open_source(directory).files, shard_bytes)
    return {name: bytes_of(content) if isinstance(content, VirtualFile) else b"" for name, content in files.items()}


def bytes_of(content: VirtualFile) -> bytes:
    data = b""
    for part in content.parts:
        if isinstance(part, bytes):
            data += part
        else:
            whole = part.path.read_bytes()
            data += whole[part.offset : part.offset + part.size_bytes]
    return data


async def test_every_tensor_arrives_bit_identical(tmp_path: Path, base: str, options: RegistryOptions) -> None:
    """The model that vLLM serves in the e2e, read back with the safetensors library."""
    write_tiny_model(tmp_path / "tiny")
    build = BuildOptions(reshard_bytes=100_000)
    modelcar = await build_layout(open_source(tmp_path / "tiny"), base, tmp_path / "out", build=build, options=options)
    models = await unpack(tmp_path / "out", modelcar.digest, tmp_path / "root")
    shards = sorted(models.glob("*.safetensors"))
    assert len(shards) > 3
    assert [shard.name for shard in shards] == [
        f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)
    ]
    before = tensors_in(tmp_path / "tiny" / "model.safetensors")
    read = {shard.name: tensors_in(shard) for shard in shards}
    assert {name: tensor for shard in read.values() for name, tensor in shard.items()} == before
    index = json.loads((models / INDEX).read_text())
    assert index["weight_map"] == {name: shard for shard, tensors in read.items() for name in tensors}
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in before.values())
    assert {shard.stat().st_size < 100_000 + 8192 for shard in shards} == {True}
    assert [metadata_in(shard) for shard in shards] == [{"format": "pt"}] * len(shards)
    again = open_source(models)  # our own check of index and headers
    assert again.parameters == open_source(tmp_path / "tiny").parameters
    others = {path.name for path in (tmp_path / "tiny").iterdir()} - {"model.safetensors"}
    assert all((models / name).read_bytes() == (tmp_path / "tiny" / name).read_bytes() for name in others)


async def test_a_merged_adapter_re_sends_the_attention_alone(
    tmp_path: Path, base: str, registry: str, repository: str, options: RegistryOptions
) -> None:
    """Qwen2.5-0.5B's layout; q_proj and v_proj, LoRA's usual targets, are 4.5% of its bytes."""
    changed = sum(
        2 * a[0] * a[1] for name, a in qwen_shapes().items() if name.endswith(("q_proj.weight", "v_proj.weight"))
    )
    sent = {}
    for name, build in (("cut", SCALED), ("whole", BuildOptions(own_layer_bytes=SCALED.own_layer_bytes))):
        where = f"{repository}-{name}"
        original = open_source(write_qwen(tmp_path / name / "original"))
        merged = open_source(write_qwen(tmp_path / name / "merged", merged=("q_proj", "v_proj")))
        first = await build_and_push(original, base, registry, where, build=build, options=options)
        second = await build_and_push(merged, base, registry, where, build=build, options=options)
        assert first.digest != second.digest
        sent[name] = second.sent_bytes / first.size_bytes
        assert changed / first.size_bytes == pytest.approx(0.045, abs=0.002)
    assert sent["cut"] < 0.15
    assert sent["whole"] > 0.95


def test_qwen_is_cut_by_role(tmp_path: Path) -> None:
    """500 MB at full size: the embeddings alone, the feed-forward part in two, attention and norms together."""
    directory = write_qwen(tmp_path / "qwen")
    files = reshard(directory, open_source(directory).files, SCALED.reshard_bytes)
    index = json.loads(bytes_of(files[INDEX]))  # type: ignore[arg-type]
    roles: dict[str, set[Role]] = {}
    for tensor, shard in index["weight_map"].items():
        roles.setdefault(shard, set()).add(role_of(tensor))
    assert [roles[shard] for shard in sorted(roles)] == [
        {Role.EMBEDDINGS},
        {Role.FEED_FORWARD},
        {Role.FEED_FORWARD},
        {Role.ATTENTION},
    ]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.embed_tokens.weight", Role.EMBEDDINGS),
        ("lm_head.weight", Role.EMBEDDINGS),
        ("transformer.wte.weight", Role.EMBEDDINGS),
        ("model.layers.3.mlp.experts.17.down_proj.weight", Role.FEED_FORWARD),
        ("model.layers.3.block_sparse_moe.gate.weight", Role.FEED_FORWARD),
        ("transformer.h.0.mlp.c_fc.weight", Role.FEED_FORWARD),
        ("model.decoder.layers.0.fc1.weight", Role.FEED_FORWARD),
        ("model.layers.3.self_attn.q_proj.weight", Role.ATTENTION),
        ("model.layers.3.input_layernorm.weight", Role.ATTENTION),
        ("something.new", Role.ATTENTION),
    ],
)
def test_roles(name: str, role: Role) -> None:
    assert role_of(name) is role


TENSORS = st.dictionaries(
    st.from_regex(r"(layers\.[0-9]{1,2}\.)?(mlp|attn|embed)\.[a-c]", fullmatch=True),
    st.tuples(st.sampled_from(["BF16", "F32", "U8", "F64"]), st.integers(0, 40)),
    min_size=1,
    max_size=12,
)


@example(
    tensors=dict.fromkeys(("mlp.a", "layers.0.mlp.a", "layers.00.mlp.a"), ("BF16", 0)),
    shard_bytes=1,
    order=random.Random(1),  # noqa: S311 - an order, not a secret
    shards=1,
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=TENSORS, shard_bytes=st.integers(1, 400), order=st.randoms(use_true_random=False), shards=st.integers(1, 4)
)
def test_the_cut_depends_on_the_tensors_alone(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: dict[str, tuple[str, int]],
    shard_bytes: int,
    order: object,
    shards: int,
) -> None:
    """One file or several, in any order: the same shards, every tensor as it was, aligned, none too large."""
    whole = {
        name: (dtype, (count,), tensor_bytes(name, count * DTYPE_BITS[dtype] // 8))
        for name, (dtype, count) in tensors.items()
    }
    one, many = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("many")
    for directory in (one, many):
        (directory / "config.json").write_text("{}")
    write_weights(one / "model.safetensors", whole, format="pt")
    names = list(whole)
    order.shuffle(names)  # type: ignore[attr-defined]
    weight_map = {name: f"model-{position % shards}.safetensors" for position, name in enumerate(names)}
    for shard in set(weight_map.values()):
        write_weights(many / shard, {name: whole[name] for name in names if weight_map[name] == shard}, format="pt")
    (many / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    made = contents(one, shard_bytes)
    assert made == contents(many, shard_bytes)
    read: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for name, data in made.items():
        path = one / f"new-{name}"
        if name.endswith(".safetensors"):
            path.write_bytes(data)
            read |= tensors_in(path)
            header = read_header(path)
            assert (LENGTH_BYTES + header.header_bytes) % 8 == 0
            assert all(tensor.begin % (DTYPE_BITS[tensor.dtype] // 8) == 0 for tensor in header.tensors)
            assert header.tensors[-1].end <= shard_bytes or len(header.tensors) == 1
    assert read == whole


def test_numbers_are_ordered_by_value() -> None:
    names = ["l.10.a", "l.2.b", "l.2.a", "x"]
    assert sorted(names, key=natural_key) == ["l.2.a", "l.2.b", "l.10.a", "x"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / "model.safetensors").rename(d / "weights.safetensors"), "no weights that can be cut anew"),
        (
            lambda d: write_weights(d / "model-00001-of-00001.safetensors", {"x": ("U8", (1,), b"x")}),
            "the name of a new shard",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(tmp_path: Path, change: object, message: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_weights(tmp_path / "model.safetensors", {"a": ("U8", (2,), b"ab")})
    change(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        reshard(tmp_path, open_source(tmp_path).files, 100)


@pytest.mark.parametrize(
    ("second", "note", "message"), [("b", "tf", "disagree on __metadata__"), ("a", "pt", "two shards hold the tensor")]
)
def test_shards_that_contradict_each_other_are_refused(tmp_path: Path, second: str, note: str, message: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_weights(tmp_path / "1.safetensors", {"a": ("U8", (1,), b"a")}, format="pt")
    write_weights(tmp_path / "2.safetensors", {second: ("U8", (1,), b"b")}, format=note)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "1.safetensors", second: "2.safetensors"}}))
    if second == "a":
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "1.safetensors", "c": "2.safetensors"}}))
        write_weights(tmp_path / "2.safetensors", {"a": ("U8", (1,), b"b"), "c": ("U8", (1,), b"c")}, format=note)
    with pytest.raises(InputError, match=message):
        reshard(tmp_path, open_source(tmp_path).files, 100)


async def test_a_file_that_grows_after_the_plan_is_refused(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "model", [64, 64])
    files = reshard(directory, open_source(directory).files, 64)
    plan = plan_layer({f"models/{name}": content for name, content in files.items()})
    await digest_of(plan)
    with (directory / "model-00001-of-00002.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="changed while it was read"):
        await digest_of(plan)


@given(sizes=st.lists(st.integers(0, 50), max_size=30), limit=st.integers(1, 120), count=st.integers(1, 10))
def test_groups_are_whole_in_order_bounded_and_even(sizes: list[int], limit: int, count: int) -> None:
    groups = cut_by_limit(sizes, limit)
    assert [position for group in groups for position in group] == list(range(len(sizes)))
    sums = [sum(sizes[position] for position in group) for group in groups]
    assert all(total <= limit or len(group) == 1 for total, group in zip(sums, groups, strict=True))
    fewest, room = 0, -1
    for size in sizes:
        fewest, room = (fewest, room - size) if room - size >= 0 else (fewest + 1, limit - size)
    assert len(groups) <= fewest
    by_count = cut_by_count(sizes, count)
    assert len(by_count) <= count
    assert [position for group in by_count for position in group] == list(range(len(sizes)))


def test_groups_are_even() -> None:
    assert cut_by_limit([1] * 12, 10) == [range(6), range(6, 12)]
    assert cut_by_limit([3, 50, 3], 10) == [range(1), range(1, 2), range(2, 3)]
    assert cut_by_count([10, 9, 12], 2) == [range(2), range(2, 3)]
    assert cut_by_count([8, 8, 20], 3) == [range(1), range(1, 2), range(2, 3)]
