"""Bounded retries: exponential backoff with jitter, or what the registry asks for in Retry-After."""

from __future__ import annotations

import email.utils
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
logger = logging.getLogger(__name__)
RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class TryAgainError(Exception):
    """An attempt failed in a way that another attempt may not.

    Args:
        reason: why.
        retry_after: the Retry-After header of the answer, empty without one.

    Attributes:
        has_moved: whether it got further than all attempts before: it is then not counted with them.
    """

    def __init__(self, reason: str, retry_after: str = "") -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.has_moved = False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try.

    Attributes:
        attempts: tries in all, the first included.
        base_s: upper bound of the first wait; it doubles with each failure.
        longest_s: upper bound of every wait, Retry-After included.
    """

    attempts: int = 5
    base_s: float = 0.5
    longest_s: float = 30.0

    def wait_s(self, failures: int, retry_after: str = "") -> float:
        """Return how long to wait after that many failures (1 or more)."""
        asked_s = retry_after_s(retry_after)
        if asked_s is not None:
            return min(asked_s, self.longest_s)
        most_s = min(self.base_s * 2 ** (failures - 1), self.longest_s)
        return random.uniform(most_s / 2, most_s)  # noqa: S311 - jitter, not a secret

    async def run(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it returns; the `TryAgainError` of the last of `attempts` in a row is raised."""
        failures = 0
        while True:
            try:
                return await attempt()
            except TryAgainError as error:
                failures = 1 if error.has_moved else failures + 1
                if failures >= self.attempts:
                    raise
                wait_s = self.wait_s(failures, error.retry_after)
                logger.warning("%s: %s; attempt %d of %d in %.1f s", what, error, failures + 1, self.attempts, wait_s)
                await anyio.sleep(wait_s)


def is_unanswered(error: Exception) -> bool:
    """Tell whether an error is that no attempt was answered, rather than that one was refused."""
    return isinstance(error.__cause__, TryAgainError)


def retry_after_s(header: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, None without a usable header."""
    text = header.strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
