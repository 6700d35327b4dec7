"""Run a bounded number of jobs at a time; the first failure cancels the others and is raised as itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")


async def run_all(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """Run every job, at most `limit` at a time, and return their results in order.

    Raises:
        Exception: what the first job to fail raised.
    """
    results: dict[int, T] = {}
    failures: list[Exception] = []
    limiter = anyio.CapacityLimiter(limit)

    async def run(position: int) -> None:
        async with limiter:
            try:
                results[position] = await jobs[position]()
            except Exception as error:  # noqa: BLE001 - raised below, outside the task group, as itself
                failures.append(error)
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for position in range(len(jobs)):
            group.start_soon(run, position)
    if failures:
        raise failures[0]
    return [results[position] for position in range(len(jobs))]
