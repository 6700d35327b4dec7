"""The comparison's promises, kept over hundreds of simulated runs on a bad machine. The noise is in `noise.py`."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from servepath.bench.growth import half_width_percent, reason_to_stop
from servepath.bench.model import BenchPlan, Metric, Statistic
from servepath.bench.pairing import BlockValues, joined, paired_ratios, unit_ratios
from tests.unit.bench.noise import BUSY, QUIET, Machine, draw

TWO = ("raw", "kserve")
THREE = ("raw", "kserve", "kserve-direct")
PLAN = BenchPlan(bootstrap_resamples=300)
RUNS = 400


def clean_share(
    plan: BenchPlan, statistic: Statistic, *, names: tuple[str, ...] = TWO, machine: Machine = BUSY, runs: int = RUNS
) -> float:
    """Share of A/A runs in which no interval of the family excludes 1."""
    clean = 0
    for seed in range(runs):
        ratios = paired_ratios(draw(plan, names, seed, machine=machine), plan, statistic, names=names)
        assert len(ratios) == len(Metric) * (len(names) - 1)
        clean += not any(ratio.differs for ratio in ratios)
    return clean / runs


@pytest.mark.parametrize(
    ("blocks", "requests", "names"), [(6, 1, TWO), (8, 2, TWO), (20, 2, TWO), (6, 2, THREE), (12, 2, THREE)]
)
def test_a_path_against_itself_gives_no_difference(blocks: int, requests: int, names: tuple[str, ...]) -> None:
    plan = replace(PLAN, blocks=blocks, requests_per_block=requests)
    assert clean_share(plan, Statistic.MEDIAN, names=names) >= 0.95


@pytest.mark.parametrize(("blocks", "requests"), [(6, 20), (12, 10), (60, 2)])
def test_nor_does_its_tail(blocks: int, requests: int) -> None:
    plan = replace(PLAN, blocks=blocks, requests_per_block=requests)
    assert clean_share(plan, Statistic.P95) >= 0.95


def test_both_statistics_together_keep_the_promise() -> None:
    plan = replace(PLAN, blocks=8, requests_per_block=20)
    wrong = sum(
        any(
            ratio.differs
            for statistic in Statistic
            for ratio in paired_ratios(draw(plan, TWO, seed, machine=BUSY), plan, statistic, names=TWO)
        )
        for seed in range(RUNS)
    )
    assert wrong <= 0.05 * RUNS


@pytest.mark.parametrize(
    ("statistic", "requests", "confidence"), [(Statistic.MEDIAN, 2, 0.75), (Statistic.P95, 20, 0.05)]
)
def test_a_narrower_interval_would_not_keep_the_promise(statistic: Statistic, requests: int, confidence: float) -> None:
    narrow = replace(PLAN, confidence=confidence, requests_per_block=requests)
    assert clean_share(narrow, statistic) < 0.95


def found_share(plan: BenchPlan, slowdown: float, machine: Machine, runs: int = 60) -> float:
    found = 0
    for seed in range(runs):
        values = draw(plan, TWO, seed, machine=machine, slowdown={"kserve": slowdown})
        ratios = paired_ratios(values, plan, Statistic.MEDIAN, names=TWO)
        found += any(ratio.metric is Metric.E2E and ratio.low > 1 for ratio in ratios)
    return found / runs


def test_5_percent_is_found_with_20_blocks_on_a_quiet_machine() -> None:
    plan = replace(PLAN, blocks=20, requests_per_block=4)
    assert found_share(plan, 1.05, QUIET) >= 0.9
    assert found_share(replace(plan, blocks=6, requests_per_block=1), 1.05, QUIET) < 0.9


def test_5_percent_is_found_with_100_blocks_on_a_busy_machine() -> None:
    plan = replace(PLAN, blocks=100, requests_per_block=4)
    assert found_share(plan, 1.05, BUSY) >= 0.8
    assert found_share(replace(plan, blocks=8), 1.05, BUSY) < 0.8


def grown(seed: int, plan: BenchPlan, machine: Machine, most_blocks: int) -> tuple[int, bool, float]:
    """A run that grows: how many blocks it took, whether it found a difference, and its half width."""
    values = draw(replace(plan, blocks=most_blocks), TWO, seed, machine=machine)
    blocks = plan.blocks
    while True:
        seen = {key: found for key, found in values.items() if key[2] < blocks}
        half_width = half_width_percent(seen, plan, TWO)
        if blocks == most_blocks or reason_to_stop(half_width, plan, blocks=blocks, elapsed_s=0.0):
            ratios = paired_ratios(seen, plan, Statistic.MEDIAN, names=TWO)
            return blocks, any(ratio.differs for ratio in ratios), half_width
        blocks += 1


def test_looking_for_precision_after_every_block_makes_no_differences() -> None:
    plan = replace(PLAN, blocks=8, requests_per_block=1, precision_percent=8, bootstrap_resamples=100)
    runs = [grown(seed, plan, QUIET, most_blocks=30) for seed in range(RUNS)]

    assert sum(not differs for _, differs, _ in runs) >= 0.95 * RUNS
    sizes = {blocks for blocks, _, _ in runs}
    assert len(sizes) > 5
    assert all(half_width <= 8 for blocks, _, half_width in runs if blocks < 30)


def test_stopping_at_the_first_difference_would_make_many() -> None:
    plan = replace(PLAN, blocks=8, requests_per_block=1, bootstrap_resamples=100)
    clean = 0
    for seed in range(60):
        values = draw(replace(plan, blocks=30), TWO, seed, machine=QUIET)
        looks = (
            paired_ratios({k: v for k, v in values.items() if k[2] < blocks}, plan, Statistic.MEDIAN, names=TWO)
            for blocks in range(8, 31, 2)
        )
        clean += not any(ratio.differs for ratios in looks for ratio in ratios)
    assert clean < 57


@pytest.mark.parametrize(
    ("half_width", "blocks", "elapsed_s", "said"),
    [
        (1.0, 7, 1.0, ""),
        (1.0, 8, 1.0, "8 blocks: medians known to ±1.0%, ±5% was wanted"),
        (9.0, 8, 50.0, ""),
        (9.0, 8, 55.0, "8 blocks: medians known to ±9.0%, no further block fits into the time of 60 s"),
        (math.inf, 9, 60.0, "9 blocks: no interval of the medians, no further block fits into the time of 60 s"),
        (9.0, 1000, 1.0, "1000 blocks: medians known to ±9.0%, 1000 blocks are the most"),
    ],
)
def test_a_run_says_why_it_ended(half_width: float, blocks: int, elapsed_s: float, said: str) -> None:
    assert reason_to_stop(half_width, PLAN, blocks=blocks, elapsed_s=elapsed_s) == said


def test_blocks_are_joined_until_a_tail_has_values_and_a_rest_is_not_lost() -> None:
    blocks = [BlockValues((1.0,) * 8, (2.0,) * 9) for _ in range(8)]
    units = joined(blocks, 20)

    assert [len(unit.baseline_s) for unit in units] == [24, 40]
    assert [len(unit.path_s) for unit in units] == [27, 45]
    assert unit_ratios(blocks, Statistic.P95) == (2.0, 2.0)
    assert unit_ratios(blocks, Statistic.MEDIAN) == (2.0,) * 8
    assert joined(blocks[:2], 20) == ()


def test_a_short_run_states_no_tail_where_it_has_too_few_values() -> None:
    plan = replace(PLAN, blocks=8, requests_per_block=2)
    ratios = paired_ratios(draw(plan, TWO, 1), plan, Statistic.P95, names=TWO)

    assert {ratio.metric for ratio in ratios} == set()
    longer = replace(plan, requests_per_block=3)
    assert {one.metric for one in paired_ratios(draw(longer, TWO, 1), longer, Statistic.P95, names=TWO)} == {Metric.ITL}
