"""What one request costs servepath and GuideLLM, as processes on the same server, in interleaved rounds.

Each round runs each client twice, with few and with many requests. The difference is what the further requests cost;
in it, the start of Python and of GuideLLM's worker processes falls out.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from ci.load_bench import guidellm
from ci.modelcar_bench import measured
from servepath.bench.instrument import paced_server, read_timings
from servepath.bench.stats import percentile
from servepath.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ci.load_bench.guidellm import Shape
    from servepath.bench.paced_server import Pace, Timing


class Client(StrEnum):
    """Who sends the requests."""

    SERVEPATH = "servepath"
    GUIDELLM = "GuideLLM"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share.

    Attributes:
        pace: of the server.
        shape: of the larger runs.
        few_requests: requests of the smaller runs.
        rounds: how often each client is run at each size.
        seed: of the order within the rounds.
        python: of GuideLLM's environment.
        model: a directory with a tokenizer.
        work: a folder for scratch files.
    """

    pace: Pace
    shape: Shape
    few_requests: int
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
        requests: how many it sent.
        cpu_s: user and system time of it and its children, start included.
        wall_s: from its start to its end.
        seen: its requests.
    """

    client: Client
    round_number: int
    requests: int
    cpu_s: float
    wall_s: float
    seen: tuple[Seen, ...]

    @property
    def latency_share(self) -> float:
        """Median over the requests of what the client added, as a share of the latency it measured."""
        return percentile([one.added_e2e_s / one.e2e_s for one in self.seen], 50)


@dataclass(frozen=True, slots=True)
class Round:
    """One client in one round."""

    few: Run
    many: Run

    @property
    def cpu_s_per_request(self) -> float:
        """CPU time of a further request."""
        return (self.many.cpu_s - self.few.cpu_s) / (self.many.requests - self.few.requests)


async def measure(bench: Bench, said: Callable[[Run], None]) -> tuple[Run, ...]:
    """Run both clients at both sizes in each round, in random order, on one server.

    Raises:
        CheckFailedError: a client failed, or a request did.
    """
    rng = random.Random(bench.seed)  # noqa: S311 - an order, no secret
    runs = []
    async with paced_server(bench.pace) as base_url:
        for round_number in range(1, bench.rounds + 1):
            sizes = (bench.few_requests, bench.shape.requests)
            planned = [(client, requests) for client in Client for requests in sizes]
            for client, requests in rng.sample(planned, len(planned)):
                run = await _run(bench, client, round_number, replace(bench.shape, requests=requests), base_url)
                said(run)
                runs.append(run)
    return tuple(runs)


def rounds_of(runs: tuple[Run, ...], client: Client) -> tuple[Round, ...]:
    """A client's runs, by round."""
    mine = [run for run in runs if run.client is client]
    numbers = sorted({run.round_number for run in mine})
    by_size = [
        sorted((run for run in mine if run.round_number == one), key=lambda run: run.requests) for one in numbers
    ]
    return tuple(Round(few, many) for few, many in by_size)


async def _run(bench: Bench, client: Client, round_number: int, shape: Shape, base_url: str) -> Run:
    result, log = bench.work / "result.json", bench.work / "log"
    if client is Client.GUIDELLM:
        command = guidellm.command(bench.python, base_url, shape, bench.model, result)
    else:
        counts = (shape.users, shape.requests, shape.prompt_tokens, shape.output_tokens)
        tokenizer = bench.model / "tokenizer.json"
        command = [sys.executable, "-m", "ci.load_bench.ours", base_url, *map(str, counts), str(tokenizer), str(result)]
    cost = await to_thread.run_sync(
        lambda: measured.run(command, directory=_root(), environment=guidellm.variables(), log=log)
    )
    seen = _seen(client, json.loads(result.read_text()), await read_timings(base_url))
    if len(seen) != shape.requests:
        raise CheckFailedError(f"{client} saw {len(seen)} of {shape.requests} requests succeed", where="load benchmark")
    return Run(client, round_number, shape.requests, cost.cpu_s, cost.wall_s, seen)


def _root() -> Path:
    return guidellm.HERE.parent.parent


def _seen(client: Client, document: Any, timings: dict[str, Timing]) -> tuple[Seen, ...]:
    if client is Client.GUIDELLM:
        rows = [(one.prompt, one.ttft_s, one.e2e_s) for one in guidellm.read_result(document).requests]
    else:
        rows = [(one["prompt"], one["ttft_s"][0], one["e2e_s"]) for one in document if one["ok"]]
    return tuple(_added(ttft_s, e2e_s, timings[prompt]) for prompt, ttft_s, e2e_s in rows)


def _added(ttft_s: float, e2e_s: float, timing: Timing) -> Seen:
    true_ttft_s, true_e2e_s = timing.chunk_times_s[0] - timing.received_s, timing.end_s - timing.received_s
    return Seen(e2e_s=e2e_s, added_ttft_s=ttft_s - true_ttft_s, added_e2e_s=e2e_s - true_e2e_s)
