"""What one request costs servepath and GuideLLM, as processes on the same server, in interleaved rounds.

The CPU time of a client is read from its first request to its last response, as the server saw them: the start of
Python and of GuideLLM's worker processes is not in it. The CPU time of the whole process is given beside it.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import anyio

from ci.load_bench import guidellm, watched
from servepath.bench.instrument import paced_server, read_timings
from servepath.bench.stats import percentile
from servepath.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ci.load_bench.guidellm import Shape
    from servepath.bench.paced_server import Pace, Timing


ROOT = guidellm.HERE.parent.parent


FEWEST = 0.95
"""Share of the requests that has to succeed; GuideLLM cancels some of the last on a busy machine."""


class Client(StrEnum):
    """Who sends the requests."""

    SERVEPATH = "servepath"
    GUIDELLM = "GuideLLM"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share.

    Attributes:
        pace: of the server.
        shape: of each run.
        rounds: how often each client is run.
        seed: of the order within the rounds.
        python: of GuideLLM's environment.
        model: a directory with a tokenizer.
        work: a folder for scratch files.
    """

    pace: Pace
    shape: Shape
    rounds: int
    seed: int
    python: Path
    model: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: what the client said of it, less what the server did."""

    e2e_s: float
    added_ttft_s: float
    added_e2e_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """One process.

    Attributes:
        client: who.
        round_number: from 1.
        loading_s: from the first request to the last response.
        loading_cpu_s: user and system time of it and its children meanwhile.
        wall_s: from its start to its end.
        cpu_s: user and system time of it and its children, from its start to its end.
        seen: its requests.
    """

    client: Client
    round_number: int
    loading_s: float
    loading_cpu_s: float
    wall_s: float
    cpu_s: float
    seen: tuple[Seen, ...]

    @property
    def latency_share(self) -> float:
        """Median over the requests of what the client added, as a share of the latency it measured."""
        return percentile([one.added_e2e_s / one.e2e_s for one in self.seen], 50)


async def measure(bench: Bench, said: Callable[[Run], None]) -> tuple[Run, ...]:
    """Run both clients in each round, in random order, on one server.

    Raises:
        CheckFailedError: a client failed, or a request did.
    """
    rng = random.Random(bench.seed)  # noqa: S311 - an order, no secret
    runs = []
    async with paced_server(bench.pace) as base_url:
        for round_number in range(1, bench.rounds + 1):
            for client in rng.sample(list(Client), len(Client)):
                run = await _run(bench, client, round_number, base_url)
                said(run)
                runs.append(run)
    return tuple(runs)


async def _run(bench: Bench, client: Client, round_number: int, base_url: str) -> Run:
    result, log, shape = bench.work / "result.json", bench.work / "log", bench.shape
    if client is Client.GUIDELLM:
        command = guidellm.command(bench.python, base_url, shape, bench.model, result)
    else:
        counts = (shape.users, shape.requests, shape.prompt_tokens, shape.output_tokens)
        tokenizer = bench.model / "tokenizer.json"
        command = [sys.executable, "-m", "ci.load_bench.ours", base_url, *map(str, counts), str(tokenizer), str(result)]
    done = await watched.run(command, {**guidellm.variables(), "PYTHONPATH": str(ROOT)}, log)
    timings = await read_timings(base_url)
    seen = _seen(client, json.loads(await anyio.Path(result).read_text()), timings)
    if len(seen) < FEWEST * shape.requests:
        raise CheckFailedError(f"{client} saw {len(seen)} of {shape.requests} requests succeed", where="load benchmark")
    start_s = min(timing.received_s for timing in timings.values())
    end_s = max(timing.end_s for timing in timings.values())
    loading_cpu_s = done.cpu_between_s(start_s, end_s)
    return Run(client, round_number, end_s - start_s, loading_cpu_s, done.wall_s, done.cpu_s, seen)


def _seen(client: Client, document: Any, timings: dict[str, Timing]) -> tuple[Seen, ...]:
    if client is Client.GUIDELLM:
        rows = [(one.prompt, one.ttft_s, one.e2e_s) for one in guidellm.read_result(document).requests]
    else:
        rows = [(one["prompt"], one["ttft_s"][0], one["e2e_s"]) for one in document if one["ok"]]
    return tuple(_added(ttft_s, e2e_s, timings[prompt]) for prompt, ttft_s, e2e_s in rows)


def _added(ttft_s: float, e2e_s: float, timing: Timing) -> Seen:
    true_ttft_s, true_e2e_s = timing.chunk_times_s[0] - timing.received_s, timing.end_s - timing.received_s
    return Seen(e2e_s=e2e_s, added_ttft_s=ttft_s - true_ttft_s, added_e2e_s=e2e_s - true_e2e_s)
