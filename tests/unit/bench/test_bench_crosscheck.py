from __future__ import annotations

from dataclasses import replace

import pytest

from servepath.bench.analysis import analyse, summarise
from servepath.bench.crosscheck import token_notes
from servepath.bench.model import BenchPlan, Sample

PLAN = BenchPlan(output_tokens=4, blocks=6, requests_per_block=1, bootstrap_resamples=100)
GOOD = Sample("raw", 0, 0, 0.0, 0.0, (0.1, 0.2, 0.3, 0.4), 0.5, prompt_tokens=7, completion_tokens=4)


def notes_of(*samples: Sample) -> tuple[str, ...]:
    return token_notes(summarise("raw", samples), PLAN)


def test_a_token_per_chunk_needs_no_note() -> None:
    assert notes_of(GOOD, GOOD) == ()


def test_no_answer_at_all_needs_no_note() -> None:
    assert notes_of() == ()


@pytest.mark.parametrize(
    ("sample", "note"),
    [
        (
            replace(GOOD, token_times_s=(0.1, 0.3)),
            "ITL of raw is per chunk, not per token: 4 tokens in 2 chunks",
        ),
        (
            replace(GOOD, token_times_s=(0.1, 0.3), completion_tokens=2),
            "raw answered with 2 tokens, not with the 4 asked for (ignore_eos)",
        ),
        (replace(GOOD, completion_tokens=0), "raw sent no usage, so its tokens are not counted"),
    ],
)
def test_what_a_reader_has_to_know_is_said(sample: Sample, note: str) -> None:
    assert notes_of(sample) == (note,)


def test_the_headline_of_a_comparison_says_it() -> None:
    samples = [
        replace(GOOD, path=path, block=block, token_times_s=times_s)
        for block in range(6)
        for path, times_s in (("raw", GOOD.token_times_s), ("kserve", (0.1, 0.3)))
    ]
    result = analyse(samples, PLAN, [("raw", "kserve")] * 6, names=("raw", "kserve"))

    assert result.headline.endswith("; ITL of kserve is per chunk, not per token: 4 tokens in 2 chunks")
