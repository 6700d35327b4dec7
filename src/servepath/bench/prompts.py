"""Seeded prompts of a wanted length in tokens.

With a `tokenizer.json` (and the optional package `tokenizers`) the user prompt has exactly that many tokens. Without
it, the number of words is calibrated with the server's own usage, so the length is the wanted one on average. Either
way the chat template adds its tokens; the report states the mean by usage. No two requests share a prompt, so no
answer comes out of a prefix cache, in an A/A run either.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from servepath.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

PROMPT_STREAM = 3
MAX_FITTING_ROUNDS = 32
PROBE_WORDS = (8, 24)
WORD_TEXT = (
    "river mill water wheel stone grain flour bread people home hills clouds birds trees fields barley children roads "
    "school books stars ships trade winds maps numbers music light garden winter summer bridge market paper letter "
    "glass copper silver island harbour lantern valley forest mountain station engine signal window carpet candle"
)
FILLERS = (" river", "s", ".", " a", "1", " I", "x")
WORDS = tuple(WORD_TEXT.split())


class PromptMaker(Protocol):
    """Makes the prompt of one request; the same key gives the same prompt."""

    def prompt(self, key: tuple[int, ...]) -> str:
        """The user prompt of the request with this key."""
        ...


@dataclass(frozen=True, slots=True)
class WordPrompts:
    """Prompts of a fixed number of words, for a server whose tokenizer is not at hand."""

    word_count: int
    seed: int

    def prompt(self, key: tuple[int, ...]) -> str:
        """`word_count` random words."""
        return " ".join(_words(self.seed, key, self.word_count))


@dataclass(frozen=True, slots=True)
class ExactPrompts:
    """Prompts of exactly `token_count` tokens of the model's own tokenizer, before the chat template."""

    tokenizer: Any
    token_count: int
    seed: int

    def prompt(self, key: tuple[int, ...]) -> str:
        """Random words cut to the token count.

        Raises:
            InputError: no text of that length was found, which a tokenizer with odd merges can cause.
        """
        text = " ".join(_words(self.seed, key, self.token_count))
        for round_number in range(MAX_FITTING_ROUNDS):
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(ids) == self.token_count:
                return text
            if len(ids) > self.token_count:
                text = self.tokenizer.decode(ids[: self.token_count]).strip()
            else:
                text += FILLERS[round_number % len(FILLERS)]
        raise InputError(
            f"no prompt of {self.token_count} tokens was found", where="tokenizer", expected="another prompt length"
        )


def tokenizer_of(model: Path) -> str:
    """`BenchPlan.tokenizer_path` for a model's directory: empty where it has none or `tokenizers` is not installed."""
    path = model / "tokenizer.json"
    return str(path) if path.is_file() and find_spec("tokenizers") else ""


def load_exact_prompts(tokenizer_json: Path, *, token_count: int, seed: int) -> ExactPrompts:
    """Prompts of exact length by a `tokenizer.json`.

    Raises:
        UsageError: the package `tokenizers` is not installed.
        InputError: the file is no tokenizer.
    """
    try:
        tokenizers = import_module("tokenizers")
    except ImportError as error:
        raise UsageError(
            "prompts of exact length need the package tokenizers", next_command="uv pip install tokenizers"
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the package raises plain Exception
        raise InputError(f"not a tokenizer: {error}", where=str(tokenizer_json)) from error
    return ExactPrompts(tokenizer, token_count, seed)


async def calibrate(prompt_tokens_of: Callable[[str], Awaitable[int]], *, token_count: int, seed: int) -> WordPrompts:
    """Word prompts whose user content has about `token_count` tokens, learnt from two requests.

    Args:
        prompt_tokens_of: sends a prompt and gives the server's `usage.prompt_tokens`.
        token_count: wanted tokens of the user content, chat template excluded.
        seed: of the words.
    """
    few, many = PROBE_WORDS
    tokens_few = await prompt_tokens_of(WordPrompts(few, seed).prompt((0,)))
    tokens_many = await prompt_tokens_of(WordPrompts(many, seed).prompt((1,)))
    tokens_per_word = max((tokens_many - tokens_few) / (many - few), 0.1)
    return WordPrompts(max(1, round(token_count / tokens_per_word)), seed)


def _words(seed: int, key: tuple[int, ...], count: int) -> list[str]:
    rng = np.random.default_rng([seed, PROMPT_STREAM, *key])
    return [WORDS[i] for i in rng.integers(0, len(WORDS), count)]
