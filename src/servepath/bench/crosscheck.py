"""Whether tokens, as the server's usage counts them, are what came as content chunks and what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servepath.bench.model import BenchPlan, PathSummary

TOLERANCE = 0.01
"""Share of the tokens that may come together with another one before ITL is no longer said to be per token."""


def token_notes(summary: PathSummary, plan: BenchPlan) -> tuple[str, ...]:
    """What a reader has to know about the tokens of one path, in words; nothing where all is as it should be.

    An engine sends several tokens in a chunk when it decodes them together (speculative decoding, multi-step
    scheduling), when it falls behind its streams, or when a token ends within a UTF-8 character.
    """
    tokens, chunks = summary.completion_tokens_mean, summary.content_chunks_mean
    if not chunks:
        return ()
    if not tokens:
        return (f"{summary.path} sent no usage, so its tokens are not counted",)
    notes = []
    if abs(chunks - tokens) > TOLERANCE * tokens:
        notes.append(f"ITL of {summary.path} is per chunk, not per token: {tokens:.4g} tokens in {chunks:.4g} chunks")
    if abs(tokens - plan.output_tokens) > TOLERANCE * plan.output_tokens:
        asked = plan.output_tokens
        notes.append(f"{summary.path} answered with {tokens:.4g} tokens, not with the {asked} asked for (ignore_eos)")
    return tuple(notes)
