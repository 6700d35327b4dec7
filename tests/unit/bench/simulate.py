"""Prints how often the comparison keeps its promises: `python -m tests.unit.bench.simulate [RUNS]`."""

from __future__ import annotations

import sys
from dataclasses import replace

from servepath.bench.model import BenchPlan, Metric, Statistic
from servepath.bench.pairing import paired_ratios
from servepath.bench.regression import compare_runs
from tests.unit.bench.noise import BUSY, QUIET, Machine, draw
from tests.unit.bench.test_bench_design import PLAN, THREE, TWO, clean_share, found_share, grown
from tests.unit.bench.test_bench_regression import GATE, run

MACHINES = {"busy": BUSY, "quiet": QUIET}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def detectable_percent(plan: BenchPlan, machine: Machine, runs: int) -> float:
    """The median over runs of the slowdown of E2E that a run says it would have found."""
    stated = sorted(
        ratio.detectable_percent
        for seed in range(runs)
        for ratio in paired_ratios(draw(plan, TWO, seed, machine=machine), plan, Statistic.MEDIAN, names=TWO)
        if ratio.metric is Metric.E2E
    )
    return stated[len(stated) // 2]


def false_differences(runs: int) -> None:
    shapes = [(6, 1, TWO), (8, 2, TWO), (8, 2, THREE), (20, 4, TWO), (60, 4, TWO)]
    for blocks, requests, names in shapes:
        plan = replace(PLAN, blocks=blocks, requests_per_block=requests)
        clean = {
            name: clean_share(plan, Statistic.MEDIAN, names=names, machine=m, runs=runs) for name, m in MACHINES.items()
        }
        say(f"A/A medians, {len(names)} paths, {blocks} blocks of {requests}: {_shares(clean)}")
    for blocks, requests in [(6, 20), (12, 10), (60, 4), (20, 20)]:
        plan = replace(PLAN, blocks=blocks, requests_per_block=requests)
        clean = {name: clean_share(plan, Statistic.P95, machine=m, runs=runs) for name, m in MACHINES.items()}
        say(f"A/A p95, {blocks} blocks of {requests}: {_shares(clean)}")


def growing(runs: int) -> None:
    for name, machine in MACHINES.items():
        plan = replace(PLAN, blocks=8, requests_per_block=2, precision_percent=5, bootstrap_resamples=100)
        ended = [grown(seed, plan, machine, most_blocks=60) for seed in range(runs)]
        clean = sum(not differs for _, differs, _ in ended) / runs
        blocks = sorted(blocks for blocks, _, _ in ended)
        say(f"A/A grown to ±5% or 60 blocks, {name}: {clean:.1%} clean, median {blocks[runs // 2]} blocks")


def power(runs: int) -> None:
    for name, machine in MACHINES.items():
        for blocks, requests in [(8, 2), (20, 4), (60, 4), (100, 4)]:
            plan = replace(PLAN, blocks=blocks, requests_per_block=requests)
            found = found_share(plan, 1.05, machine, runs)
            stated = detectable_percent(plan, machine, runs)
            say(f"5% slower, {name}, {blocks} blocks of {requests}: found in {found:.0%}; would find {stated:.1f}%")


def regressions(runs: int) -> None:
    for name, machine in MACHINES.items():
        for label, slowdown in (
            ("the same", {}),
            ("kserve 20% slower", {"kserve": 1.2}),
            ("both 40% slower", {"raw": 1.4, "kserve": 1.4}),
        ):
            found = sum(
                bool(compare_runs(run(s, machine=machine), run(s + 10**6, slowdown, machine=machine), GATE).regressed)
                for s in range(runs)
            )
            say(f"two runs of 24 blocks, {name}, {label}: regressed in {found / runs:.1%}")


def _shares(clean: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in clean.items())


def main(runs: int = 2_000) -> None:
    false_differences(runs)
    growing(runs // 2)
    power(runs // 10)
    regressions(runs // 10)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
