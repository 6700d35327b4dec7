"""The two clients side by side, as a Markdown table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ci.load_bench.experiment import Bench, Client, Round, Run, rounds_of
from servepath.bench.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def table(bench: Bench, runs: tuple[Run, ...]) -> str:
    """One row per quantity: the median over the rounds of each client, and of their paired ratio with its range."""
    ours, theirs = rounds_of(runs, Client.SERVEPATH), rounds_of(runs, Client.GUIDELLM)
    tokens = bench.shape.output_tokens

    def row(name: str, value_of: Callable[[Round], float], form: str) -> str:
        values = [[value_of(one) for one in rounds] for rounds in (ours, theirs)]
        ratios = [mine / other for mine, other in zip(*values, strict=True)]
        cells = [format(percentile(each, 50), form) for each in values]
        return f"| {name} | {cells[0]} | {cells[1]} | {_ratio(ratios)} |"

    def added_ms(which: Callable[[Run], list[float]], percent: float) -> Callable[[Round], float]:
        return lambda one: percentile(which(one.many), percent) * 1000

    return "\n".join(
        [
            _conditions(bench),
            "",
            f"| per client | servepath | GuideLLM | ratio, median of {bench.rounds} rounds (range) |",
            "| --- | ---: | ---: | ---: |",
            row("requests per CPU second, start excluded", lambda one: 1 / one.cpu_s_per_request, ".0f"),
            row("tokens per CPU second, start excluded", lambda one: tokens / one.cpu_s_per_request, ".0f"),
            row("requests per CPU second, whole process", lambda one: one.many.requests / one.many.cpu_s, ".1f"),
            row("CPU seconds to start and send few", lambda one: one.few.cpu_s, ".1f"),
            row("added to TTFT, p50 (ms)", added_ms(_ttft, 50), ".2f"),
            row("added to TTFT, p95 (ms)", added_ms(_ttft, 95), ".2f"),
            row("added to E2E, p50 (ms)", added_ms(_e2e, 50), ".2f"),
            row("added to E2E, p95 (ms)", added_ms(_e2e, 95), ".2f"),
            row("added, share of the measured E2E (%)", lambda one: 100 * one.many.latency_share, ".1f"),
        ]
    )


def _conditions(bench: Bench) -> str:
    shape, pace = bench.shape, bench.pace
    e2e_s = pace.first_token_s + pace.gap_s * (shape.output_tokens - 1)
    return (
        f"{shape.users} users, {shape.requests} requests (few: {bench.few_requests}) of {shape.prompt_tokens} prompt "
        f"and {shape.output_tokens} output tokens; the server sends the first token after "
        f"{pace.first_token_s * 1000:g} ms, the next each {pace.gap_s * 1000:g} ms: at most "
        f"{shape.users * shape.output_tokens / e2e_s:.0f} tokens/s. "
        f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}."
    )


def _ratio(ratios: Sequence[float]) -> str:
    return f"{percentile(ratios, 50):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _ttft(run: Run) -> list[float]:
    return [one.added_ttft_s for one in run.seen]


def _e2e(run: Run) -> list[float]:
    return [one.added_e2e_s for one in run.seen]
