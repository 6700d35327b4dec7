"""A constant load: requests sent when they are due, whether or not earlier ones were answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import httpx

from servepath.bench.load import CHAT_PATH, KEEPALIVE_EXPIRY_S
from servepath.serving.completion import completion_text, first_token_body

if TYPE_CHECKING:
    from servepath.serving.model import Endpoint

_SHOWN_CHARACTERS = 100


@dataclass(slots=True)
class ConstantLoad:
    """Requests for one token at a constant rate.

    Attributes:
        endpoint: where they go.
        rate_per_s: how many are sent in a second.
        timeout_s: after how many seconds a request without an answer counts as failed.
        samples: of each request that has ended, when it was sent (anyio's clock, in seconds) and whether it was
            answered.
        errors: what the others came to, and how many each.
    """

    endpoint: Endpoint
    rate_per_s: float
    timeout_s: float
    samples: list[tuple[float, bool]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _ending: bool = False

    async def run(self) -> None:
        """Send until `end` is called, and await what is under way then."""
        async with self._client() as client, anyio.create_task_group() as group:
            began_s = anyio.current_time()
            number = 0
            while not self._ending:
                group.start_soon(self._send, client)
                number += 1
                await anyio.sleep_until(began_s + number / self.rate_per_s)

    def end(self) -> None:
        """Send no further request."""
        self._ending = True

    async def _send(self, client: httpx.AsyncClient) -> None:
        sent_s = anyio.current_time()
        error = f"no answer in {self.timeout_s:g} s"
        with anyio.move_on_after(self.timeout_s):
            try:
                response = await client.post(CHAT_PATH, json=first_token_body(self.endpoint.model))
            except httpx.HTTPError as failure:
                error = f"{type(failure).__name__}: {failure}"[:_SHOWN_CHARACTERS].rstrip(": ")
            else:
                error = "" if completion_text(response) is not None else _words_of(response)
        if error:
            self.errors[error] += 1
        self.samples.append((sent_s, not error))

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.endpoint.base_url,
            headers=self.endpoint.headers(),
            timeout=self.timeout_s,
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_EXPIRY_S),
            trust_env=False,
        )


def _words_of(response: httpx.Response) -> str:
    """Give a failed answer in a few words: a gateway says why in its body's first line."""
    return f"HTTP {response.status_code}: {response.text[:_SHOWN_CHARACTERS].partition(chr(10))[0]}"


def downtime_s(samples: tuple[tuple[float, bool], ...]) -> float:
    """Give the seconds in which requests failed: from each first failed request to the next that was answered.

    Args:
        samples: when each request was sent, in seconds, and whether it was answered; in the order of sending.

    Returns:
        The sum over all such gaps; one that does not end lasts until the last request.
    """
    total_s = 0.0
    failed_since_s: float | None = None
    for sent_s, answered in samples:
        if not answered and failed_since_s is None:
            failed_since_s = sent_s
        elif answered and failed_since_s is not None:
            total_s += sent_s - failed_since_s
            failed_since_s = None
    if failed_since_s is not None:
        total_s += samples[-1][0] - failed_since_s
    return total_s
