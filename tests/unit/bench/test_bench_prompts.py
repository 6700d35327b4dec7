from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from ci.node.tiny_model import write_tiny_model
from servepath.bench.prompts import WORD_TEXT, ExactPrompts, load_exact_prompts, tokenizer_of
from servepath.errors import InputError


@cache
def byte_tokenizer() -> str:
    """The tokenizer of the tiny model: one token per byte."""
    with TemporaryDirectory() as folder:
        write_tiny_model(Path(folder))
        return (Path(folder) / "tokenizer.json").read_text()


@cache
def merging_tokenizer() -> str:
    """A byte-level BPE, as of Qwen and SmolLM2, whose merges cross what prompts are cut at."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<s>"])
    tokenizer.train_from_iterator([WORD_TEXT, "lantern lanterns land.lands the riverbed"], trainer)
    return str(tokenizer.to_str())


def prompts_of(tokenizer_json: str, token_count: int) -> ExactPrompts:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(tokenizer_json)
        return load_exact_prompts(path, token_count=token_count, seed=42)


@pytest.mark.parametrize("tokenizer_json", [byte_tokenizer, merging_tokenizer])
@settings(deadline=None)
@given(token_count=st.integers(1, 400), key=st.integers(0, 100))
def test_prompts_have_exactly_that_many_tokens_of_a_real_tokenizer(
    tokenizer_json: object, token_count: int, key: int
) -> None:
    assert callable(tokenizer_json)
    text = prompts_of(tokenizer_json(), token_count).prompt((0, key))

    assert (
        len(tokenizers.Tokenizer.from_str(tokenizer_json()).encode(text, add_special_tokens=False).ids) == token_count
    )


def test_prompts_are_the_same_for_a_key_and_differ_between_keys() -> None:
    prompts = prompts_of(merging_tokenizer(), 32)

    assert prompts.prompt((1, 2, 3)) == prompts_of(merging_tokenizer(), 32).prompt((1, 2, 3))
    assert len({prompts.prompt((path, block, 0)) for path in range(3) for block in range(30)}) == 90


def test_a_file_that_is_no_tokenizer_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        load_exact_prompts(path, token_count=4, seed=1)


def test_a_models_own_tokenizer_is_used_where_it_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokenizer_of(tmp_path) == ""
    write_tiny_model(tmp_path)
    assert tokenizer_of(tmp_path) == str(tmp_path / "tokenizer.json")
    monkeypatch.setattr("servepath.bench.prompts.find_spec", lambda _: None)
    assert tokenizer_of(tmp_path) == ""
