"""Patience with an API server that is away for a moment: started again, upgraded, or busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from servepath.cluster.client import is_passing
from servepath.errors import ClusterError
from servepath.modelcar.registry.retry import RetryPolicy, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

PATIENCE = RetryPolicy(attempts=8, base_s=0.5, longest_s=8.0)
"""Half a minute at most: a control plane of GKE that has one node is away for longer only while it is upgraded."""


async def patiently(what: str, work: Callable[[], Awaitable[T]], policy: RetryPolicy = PATIENCE) -> T:
    """Do work that may be done again, until the API server answers.

    Args:
        what: what it is, for the log.
        work: does it; doing it twice must come to the same.
        policy: how often and how long.

    Raises:
        ClusterError: what the last attempt raised, or any that another attempt would not change.
    """

    async def attempt() -> T:
        try:
            return await work()
        except ClusterError as error:
            if is_away(error):
                raise TryAgainError(error.what) from error
            raise

    try:
        return await policy.run(what, attempt)
    except TryAgainError as error:
        if isinstance(error.__cause__, ClusterError):
            raise error.__cause__ from error
        raise


def is_away(error: ClusterError) -> bool:
    """Tell an API server that does not answer from one that refuses."""
    return is_passing(error.__cause__)
