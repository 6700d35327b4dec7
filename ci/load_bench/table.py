"""The two clients side by side, as a Markdown table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ci.load_bench.experiment import Client
from servepath.bench.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ci.load_bench.experiment import Bench, Run, Seen


def table(bench: Bench, runs: tuple[Run, ...]) -> str:
    """One row per quantity: the median over the rounds of each client, and of their paired ratio with its range."""
    by_client = [
        sorted((run for run in runs if run.client is client), key=lambda run: run.round_number) for client in Client
    ]
    tokens = bench.shape.output_tokens

    def row(name: str, value_of: Callable[[Run], float], form: str) -> str:
        values = [[value_of(run) for run in mine] for mine in by_client]
        ratios = [ours / theirs for ours, theirs in zip(*values, strict=True)]
        cells = [format(percentile(each, 50), form) for each in values]
        return f"| {name} | {cells[0]} | {cells[1]} | {_ratio(ratios)} |"

    def added_ms(which: Callable[[Seen], float], percent: float) -> Callable[[Run], float]:
        return lambda run: percentile([which(one) for one in run.seen], percent) * 1000

    return "\n".join(
        [
            _conditions(bench),
            "",
            f"| per client | servepath | GuideLLM | ratio, median of {bench.rounds} rounds (range) |",
            "| --- | ---: | ---: | ---: |",
            row("requests per CPU second, while loading", lambda run: len(run.seen) / run.loading_cpu_s, ".0f"),
            row("tokens per CPU second, while loading", lambda run: tokens * len(run.seen) / run.loading_cpu_s, ".0f"),
            row("requests per CPU second, whole process", lambda run: len(run.seen) / run.cpu_s, ".1f"),
            row("tokens per second, while loading", lambda run: tokens * len(run.seen) / run.loading_s, ".0f"),
            row("added to TTFT, p50 (ms)", added_ms(lambda one: one.added_ttft_s, 50), ".2f"),
            row("added to TTFT, p95 (ms)", added_ms(lambda one: one.added_ttft_s, 95), ".2f"),
            row("added to E2E, p50 (ms)", added_ms(lambda one: one.added_e2e_s, 50), ".2f"),
            row("added to E2E, p95 (ms)", added_ms(lambda one: one.added_e2e_s, 95), ".2f"),
            row("added, share of the measured E2E (%)", lambda run: 100 * run.latency_share, ".1f"),
        ]
    )


def _conditions(bench: Bench) -> str:
    shape, pace = bench.shape, bench.pace
    e2e_s = pace.first_token_s + pace.gap_s * (shape.output_tokens - 1)
    return (
        f"{shape.users} users, {shape.requests} requests of {shape.prompt_tokens} prompt "
        f"and {shape.output_tokens} output tokens; the server sends the first token after "
        f"{pace.first_token_s * 1000:g} ms, the next each {pace.gap_s * 1000:g} ms: at most "
        f"{shape.users * shape.output_tokens / e2e_s:.0f} tokens/s. "
        f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}."
    )


def _ratio(ratios: Sequence[float]) -> str:
    return f"{percentile(ratios, 50):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
