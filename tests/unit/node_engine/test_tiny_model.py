import json
from hashlib import sha256
from pathlib import Path

import pytest

from ci.node.tiny_model import BYTE_TOKENS, HEAD_SIZE, HEADS, HIDDEN, SPECIAL_TOKENS, VOCABULARY, write_tiny_model
from servepath.errors import InputError
from servepath.modelcar.source.directory import open_source
from servepath.modelcar.source.safetensors import read_header


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_it_is_a_model_that_a_modelcar_takes(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    source = open_source(tmp_path)
    header = read_header(tmp_path / "model.safetensors")
    assert source.licence == "Apache-2.0"
    assert source.dtype == "BF16"
    assert source.parameters == header.parameters == sum(tensor.elements for tensor in header.tensors)
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(source.files)


def test_weights_have_the_shapes_that_the_config_says(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    shapes = {tensor.name: tuple(tensor.shape) for tensor in read_header(tmp_path / "model.safetensors").tensors}
    assert config["hidden_size"] // config["num_attention_heads"] == HEAD_SIZE == HIDDEN // HEADS == 64
    assert shapes["model.embed_tokens.weight"] == (config["vocab_size"], config["hidden_size"])
    layers = {name.split(".")[2] for name in shapes if name.startswith("model.layers.")}
    assert len(layers) == config["num_hidden_layers"]


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError):
        open_source(tmp_path)


def test_same_seed_same_bytes_other_seed_other_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tiny_model(tmp_path / name, seed)
    first, again, other = (_digests(tmp_path / name) for name in "abc")
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def test_bytes_do_not_depend_on_the_machine(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    seen = sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert seen == "8cad4d8e5b494aacebe1e05015089cc7467d2f96b249741ced589aaa78d0ca7d"


def test_the_tokenizer_has_a_token_for_every_byte_and_role_mark(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(BYTE_TOKENS))
    assert vocabulary["A"] == 65
    assert vocabulary["Ġ"] == 32  # how byte-level BPE writes a space
    assert [token["content"] for token in tokenizer["added_tokens"]] == list(SPECIAL_TOKENS)
    assert max(token["id"] for token in tokenizer["added_tokens"]) < VOCABULARY
