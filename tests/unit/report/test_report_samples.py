from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from servepath.bench.model import ErrorClass, Sample
from servepath.report.samples import AddedTimes, KeptSamples, kept_samples, pack, unpack
from tests.unit.report.example_runs import failed_run, full_run

TIMES = st.floats(-1e3, 1e5) | st.integers(0, 10**15).map(lambda ns: ns / 1e9)
SAMPLES = st.builds(
    Sample,
    path=st.sampled_from(["raw", "kserve", "ksérve \x00"]),
    block=st.integers(0, 99),
    index=st.integers(0, 99),
    intended_s=TIMES,
    sent_s=TIMES,
    token_times_s=st.lists(TIMES, max_size=5).map(tuple),
    end_s=TIMES,
    prompt_tokens=st.integers(0, 1 << 40),
    completion_tokens=st.integers(0, 1 << 40),
)
FAILED = st.builds(
    Sample,
    path=st.just("raw"),
    block=st.integers(0, 9),
    index=st.integers(0, 9),
    intended_s=TIMES,
    sent_s=TIMES,
    token_times_s=st.just(()),
    end_s=TIMES,
    error=st.sampled_from(ErrorClass),
    error_detail=st.text(st.characters(codec="utf-8")),
)
ROWS = st.lists(SAMPLES | FAILED, max_size=6).map(tuple)
ROLLOUTS = st.lists(st.lists(st.tuples(TIMES, st.booleans()), max_size=4).map(tuple), max_size=2).map(tuple)
SOME_TIMES = st.lists(TIMES, max_size=3).map(tuple)
ADDED = st.lists(st.builds(AddedTimes, SOME_TIMES, SOME_TIMES, SOME_TIMES), max_size=2).map(tuple)


@settings(deadline=None)
@given(st.builds(KeptSamples, comparison=ROWS, sweep=ROWS, rollouts=ROLLOUTS, instrument=ADDED))
def test_any_samples_come_back_as_they_were(kept: KeptSamples) -> None:
    assert unpack(pack(kept)) == kept


@pytest.mark.parametrize("report", [full_run(), failed_run()], ids=["full", "failed"])
def test_the_samples_of_a_run_come_back_as_they_were(report: Any) -> None:
    kept = kept_samples(report)
    assert kept.request_count > 0
    assert unpack(pack(kept)) == kept


def many(requests: int, tokens: int) -> tuple[Sample, ...]:
    rng = np.random.default_rng(5)
    samples = []
    for index in range(requests):
        start_s = index / 20
        times_s = start_s + 0.2 + np.cumsum(rng.gamma(9, 0.002, tokens))
        sent_s = round(start_s + 1e-4 * float(rng.random()), 9)
        token_times_s = tuple(round(float(time_s), 9) for time_s in times_s)
        samples.append(
            Sample("raw", index // 100, index % 100, start_s, sent_s, token_times_s, token_times_s[-1], 256, tokens)
        )
    return tuple(samples)


def test_a_token_time_takes_about_four_bytes() -> None:
    content = pack(KeptSamples(comparison=many(400, 128)))
    assert len(content) / (400 * 128) < 4.2


def broken(change: dict[str, Any]) -> bytes:
    document = json.loads(zstandard.ZstdDecompressor().decompress(pack(kept_samples(full_run())), 1 << 30))
    document["comparison"] |= change
    return zstandard.ZstdCompressor().compress(json.dumps(document).encode())


@pytest.mark.parametrize(
    "change",
    [{"token": {"unit": "s", "values": [1.0]}}, {"path": []}, {"path": [7] * 240}, {"sent": {}}, {"errors": [1]}],
)
def test_columns_that_do_not_fit_each_other_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(broken(change))
