"""The number of requests that wait inside the engine, read from its own metrics while it is under load."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METRICS_PATH = "/metrics"
WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
"""A gauge per engine of the server. Source: vLLM 0.23.0, V1 metrics."""

INTERVAL_S = 0.5
READ_TIMEOUT_S = 2.0


def waiting_of(exposition: str) -> float | None:
    """Requests that wait, summed over the server's engines, from its metrics in Prometheus' text; None without any."""
    found = [float(value) for value in WAITING.findall(exposition)]
    return sum(found) if found else None


async def read_waiting(client: httpx.AsyncClient) -> float | None:
    """Requests that wait inside the engine now, None where its metrics cannot be read by this client."""
    try:
        with anyio.fail_after(READ_TIMEOUT_S):
            response = await client.get(METRICS_PATH, headers={"Accept": "text/plain"})
    except (TimeoutError, httpx.HTTPError):
        return None
    return waiting_of(response.text) if response.status_code == httpx.codes.OK else None


@asynccontextmanager
async def watching(client: httpx.AsyncClient, seconds: float) -> AsyncIterator[list[float]]:
    """Reads at even intervals for so many seconds while the block runs; gives the list that the readings are put in.

    A reading that fails is left out.
    """
    readings: list[float] = []

    async def read() -> None:
        with anyio.move_on_after(seconds):
            while True:
                value = await read_waiting(client)
                if value is not None:
                    readings.append(value)
                await anyio.sleep(INTERVAL_S)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        yield readings
        group.cancel_scope.cancel()
