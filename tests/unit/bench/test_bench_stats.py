from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.bench.analysis import analyse
from servepath.bench.model import Arrivals, BenchPlan, Comparison, Metric, Sample
from servepath.bench.prompts import ExactPrompts, WordPrompts, load_exact_prompts
from servepath.bench.schedule import arrival_times_s, block_order
from servepath.bench.slo import Slo, evaluate
from servepath.bench.stats import percentile, ratio_interval, student_t_cdf, student_t_quantile
from servepath.errors import InputError, UsageError

NAMES = ("raw", "kserve")


def synthetic(plan: BenchPlan, *, slowdown: float = 1.0, lateness_s: float = 0.0) -> tuple[Sample, ...]:
    """Requests of a machine whose speed drifts from block to block and that has a hiccup now and then."""
    rng = np.random.default_rng([plan.seed, 99])
    samples = []
    for block in range(plan.blocks):
        drift = float(rng.lognormal(0, 0.1))
        for path in NAMES:
            factor = drift * (slowdown if path == "kserve" else 1.0) * float(rng.lognormal(0, 0.01))
            for index, at_s in enumerate(arrival_times_s(plan, block)):
                hiccup = 3.0 if rng.random() < 0.02 else 1.0
                gaps_s = 0.05 * factor * rng.lognormal(0, 0.05, plan.output_tokens - 1)
                first_s = at_s + 0.2 * factor * hiccup * float(rng.lognormal(0, 0.05))
                times_s = tuple(float(t) for t in first_s + np.concatenate([[0.0], np.cumsum(gaps_s)]))
                sample = Sample(
                    path, block, index, at_s, at_s + lateness_s, times_s, times_s[-1], 40, plan.output_tokens
                )
                samples.append(sample)
    return tuple(samples)


def run(plan: BenchPlan, *, slowdown: float = 1.0) -> Comparison:
    order = block_order(NAMES, plan)
    return analyse(synthetic(plan, slowdown=slowdown), plan, order, names=NAMES)


@pytest.mark.parametrize("blocks", [6, 8])
def test_a_path_against_itself_comes_out_as_no_difference(blocks: int) -> None:
    runs = [run(BenchPlan(blocks=blocks, seed=seed, bootstrap_resamples=500)) for seed in range(200)]
    clean = sum(result.headline.startswith("no difference found") for result in runs)
    assert clean >= 0.95 * len(runs)


def test_an_injected_slowdown_of_5_percent_is_found_with_enough_blocks() -> None:
    plans = [BenchPlan(blocks=20, requests_per_block=4, seed=seed, bootstrap_resamples=500) for seed in range(40)]
    e2e_ratios = [ratio for plan in plans for ratio in run(plan, slowdown=1.05).ratios if ratio.metric is Metric.E2E]
    found = [ratio for ratio in e2e_ratios if ratio.differs]
    assert len(found) >= 36
    assert all(ratio.verdict.startswith("kserve is 1.0") for ratio in found)
    assert sum(ratio.low < 1.05 < ratio.high for ratio in e2e_ratios) >= 36


def test_a_difference_as_large_as_stated_is_found_as_often_as_stated() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for seed in range(400):
        logs = rng.normal(np.log(1.06), 0.05, 10)
        interval = ratio_interval(list(np.exp(logs)), confidence=0.95, power=0.8, resamples=300, seed=seed)
        found += interval.low > 1
    # With a sigma of 5% and 10 blocks, 6% is found in about 9 of 10 runs, so the one found in 8 of 10 is about 5%.
    assert 0.85 < found / 400 < 0.99
    stated = [
        ratio_interval(list(np.exp(rng.normal(0, 0.05, 10))), confidence=0.95, power=0.8, resamples=300, seed=s)
        for s in range(200)
    ]
    assert np.median([interval.detectable_percent for interval in stated]) == pytest.approx(5.0, abs=0.7)


@pytest.mark.parametrize("blocks", [4, 6, 10])
def test_the_interval_covers_the_truth_as_often_as_it_says(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    covered = 0
    for seed in range(1000):
        ratios = list(np.exp(rng.normal(np.log(1.2), 0.1, blocks)))
        interval = ratio_interval(ratios, confidence=0.95, power=0.8, resamples=500, seed=seed)
        covered += interval.low <= 1.2 <= interval.high
    assert 0.93 <= covered / 1000 <= 0.975


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 5, 2.57058),
        (0.975, 10, 2.22814),
        (0.99, 7, 2.99795),
        (0.8, 4, 0.94096),
        (0.025, 5, -2.57058),
    ],
)
def test_student_t_quantiles_are_those_of_the_tables(probability: float, degrees: int, expected: float) -> None:
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, abs=1e-4)
    assert student_t_cdf(expected, degrees) == pytest.approx(probability, abs=1e-5)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_a_percentile_lies_within_the_values(values: list[float], percent: float) -> None:
    assert min(values) <= percentile(values, percent) <= max(values)


def test_the_same_samples_give_the_same_numbers() -> None:
    assert run(BenchPlan()) == run(BenchPlan())


def test_summaries_are_those_of_a_hand_computed_case() -> None:
    plan = BenchPlan(blocks=6, requests_per_block=1, output_tokens=3, bootstrap_resamples=100)
    samples = [
        Sample(path, block, 0, 0.0, 0.001, (0.1, 0.2, 0.4), 0.5, prompt_tokens=7, completion_tokens=3)
        for block in range(6)
        for path in NAMES
    ]
    raw = analyse(samples, plan, block_order(NAMES, plan), names=NAMES).summaries[0]

    assert raw.loaded_s == pytest.approx(3)
    assert raw.output_tokens_per_s == pytest.approx(18 / 3)
    assert raw.completed_requests_per_s == pytest.approx(2)
    ttft, itl, e2e = (raw.latency(metric) for metric in (Metric.TTFT, Metric.ITL, Metric.E2E))
    assert ttft
    assert itl
    assert e2e
    assert ttft.p50_s == pytest.approx(0.1)
    assert itl.sample_count == 12
    assert (itl.p50_s, itl.max_s) == pytest.approx((0.15, 0.2))
    assert e2e.p99_s == pytest.approx(0.5)


def test_a_client_that_could_not_keep_its_schedule_says_so_and_the_ratio_is_not_announced() -> None:
    plan = BenchPlan(bootstrap_resamples=100)
    late = analyse(synthetic(plan, slowdown=2.0, lateness_s=0.2), plan, block_order(NAMES, plan), names=NAMES)

    assert not late.client.kept_schedule
    assert late.client.lateness_p95_s == pytest.approx(0.2)
    assert late.headline.startswith("not usable: the client sent its requests 200 ms late")


def test_slos_are_evaluated_per_path_and_a_missing_measurement_is_a_miss() -> None:
    plan = BenchPlan(bootstrap_resamples=100)
    comparison = run(plan)
    met = evaluate(comparison, Slo(ttft_p95_s=10, itl_p95_s=10, e2e_p95_s=10))
    missed = [one for one in evaluate(comparison, Slo(ttft_p95_s=10, itl_p95_s=0.02, e2e_p95_s=None)) if not one.met]
    nothing = evaluate(analyse([], plan, block_order(NAMES, plan), names=NAMES), Slo())

    assert all(one.met for one in met)
    assert len(met) == 8
    assert {(one.path, one.objective) for one in missed} == {("raw", "itl_p95_s"), ("kserve", "itl_p95_s")}
    assert {one.objective for one in nothing if not one.met} == {"ttft_p95_s", "itl_p95_s", "e2e_p95_s"}


@given(blocks=st.integers(6, 40), seed=st.integers(0, 1000), paths=st.integers(2, 4))
def test_every_block_has_every_path_once_and_positions_are_balanced(blocks: int, seed: int, paths: int) -> None:
    names = [f"path{number}" for number in range(paths)]
    plan = BenchPlan(blocks=blocks, seed=seed)
    order = block_order(names, plan)

    assert order == block_order(names, plan)
    assert len(order) == blocks
    assert all(sorted(names_of_block) == names for names_of_block in order)
    first = [sum(block[0] == name for block in order) for name in names]
    assert max(first) - min(first) <= 1


def test_schedules_are_seeded_open_loop_and_have_the_rate_asked_for() -> None:
    constant = BenchPlan(requests_per_block=5, rate_per_s=2)
    poisson = BenchPlan(requests_per_block=4001, rate_per_s=2, arrivals=Arrivals.POISSON)

    assert arrival_times_s(constant, 0) == pytest.approx((0, 0.5, 1, 1.5, 2))
    times_s = arrival_times_s(poisson, 3)
    assert times_s == arrival_times_s(poisson, 3)
    assert times_s != arrival_times_s(poisson, 4)
    gaps_s = np.diff(times_s)
    assert gaps_s.min() >= 0
    assert gaps_s.mean() == pytest.approx(0.5, rel=0.1)
    assert gaps_s.std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    "bad",
    [
        {"blocks": 5},
        {"requests_per_block": 0},
        {"rate_per_s": 0},
        {"output_tokens": -1},
        {"confidence": 1.0},
        {"warmup_requests": -1},
        {"burst_size": 0},
        {"users": 0},
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="benchmark plan"):
        BenchPlan(**bad)  # type: ignore[arg-type]


class CharacterTokenizer:
    """One token per character: the shape of `tokenizers.Tokenizer` that exact prompts use."""

    class Encoding:
        def __init__(self, text: str) -> None:
            self.ids = [ord(letter) for letter in text]

    def encode(self, text: str, *, add_special_tokens: bool) -> Encoding:
        assert not add_special_tokens
        return self.Encoding(text)

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@given(st.integers(1, 300), st.integers(0, 50))
def test_exact_prompts_have_exactly_that_many_tokens(tokens: int, key: int) -> None:
    prompts = ExactPrompts(CharacterTokenizer(), tokens, seed=42)
    text = prompts.prompt((key,))
    assert len(text) == tokens
    assert text == text.strip()


class StubbornTokenizer(CharacterTokenizer):
    """Knows one token only, whatever the text."""

    def encode(self, text: str, *, add_special_tokens: bool) -> CharacterTokenizer.Encoding:
        return super().encode(text[:1], add_special_tokens=add_special_tokens)


def test_a_length_that_cannot_be_made_is_a_clear_error() -> None:
    with pytest.raises(InputError, match="no prompt of 5 tokens"):
        ExactPrompts(StubbornTokenizer(), 5, seed=42).prompt((0,))


def test_word_prompts_are_seeded_and_differ_by_request() -> None:
    prompts = WordPrompts(12, seed=1)
    assert prompts.prompt((0, 1)) == WordPrompts(12, seed=1).prompt((0, 1))
    assert len({prompts.prompt((path, block, 0)) for path in range(3) for block in range(50)}) == 150
    assert len(prompts.prompt((0, 0)).split()) == 12


def test_a_missing_tokenizer_package_or_file_is_a_clear_error() -> None:
    from pathlib import Path  # noqa: PLC0415

    with pytest.raises((UsageError, InputError), match="token"):
        load_exact_prompts(Path("/nonexistent/tokenizer.json"), token_count=4, seed=1)
