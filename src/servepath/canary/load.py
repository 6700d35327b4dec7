"""The client of a canary: streams through the stable hostname at a constant rate.

They begin before the first change and end after the last one; none of them may fail.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio

from servepath.bench.load import CHAT_PATH, Slot, chat_body, open_client, send
from servepath.bench.model import BenchPlan, Metric
from servepath.bench.prompts import WordPrompts
from servepath.canary.model import ClientRequest
from servepath.serving import slots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from servepath.bench.model import Sample
    from servepath.canary.model import ClientPlan
    from servepath.serving.model import Endpoint

_PROMPT_WORDS = 12
_SEED = 42
_ANSWERED_BY = "servepath_slot"
_SHOWN_CHARACTERS = 200


class ClientLoad:
    """The constant load.

    While the canary has its share, each request is followed by one of the same kind to the slot that did not answer it.
    So both slots carry the same load whatever the weights, and their latencies can be compared at 5% as at 95%. Those
    are no client's requests: their failures tell against the slot, and are not among the clients'.

    Args:
        endpoint: the stable hostname.
        plan: rate and length of the requests.
        began_s: what the times of the requests count from, by anyio's clock.
    """

    def __init__(self, endpoint: Endpoint, plan: ClientPlan, began_s: float) -> None:
        self.both: Mapping[slots.Slot, Endpoint] = {}
        """The endpoint of each slot while both are to carry the same load, else empty."""

        self._endpoint = endpoint
        self._plan = plan
        self._began_s = began_s
        self._prompts = WordPrompts(_PROMPT_WORDS, _SEED)
        self._bench = BenchPlan(
            output_tokens=plan.output_tokens, connect_timeout_s=plan.timeout_s, request_timeout_s=plan.timeout_s
        )
        self._requests: list[ClientRequest] = []
        self._balance: list[ClientRequest] = []
        self._ending = anyio.Event()

    @property
    def requests(self) -> tuple[ClientRequest, ...]:
        """The requests that have ended, in the order of sending."""
        return tuple(sorted(self._requests, key=lambda request: request.sent_s))

    def since(self, time_s: float) -> Sequence[ClientRequest]:
        """Every request beside the pairs that was sent from then on and has ended, those that balance the load too."""
        return [request for request in (*self._requests, *self._balance) if request.sent_s >= time_s]

    async def run(self) -> None:
        """Send until `end` is called, and await what is under way then."""
        first_s = anyio.current_time()
        number = 0
        async with open_client(self._endpoint, self._bench) as http, anyio.create_task_group() as group:
            http.event_hooks = {"response": [_keep_slot]}
            while not self._ending.is_set():
                intended_s = first_s + number / self._plan.rate_per_s
                with anyio.move_on_after(max(0.0, intended_s - anyio.current_time())):
                    await self._ending.wait()
                if not self._ending.is_set():
                    group.start_soon(self._client_request, http, number, intended_s - self._began_s)
                number += 1

    def end(self) -> None:
        """Send no further request."""
        self._ending.set()

    async def _client_request(self, http: httpx.AsyncClient, number: int, intended_s: float) -> None:
        request = self._request(http, number, {})
        sample = await self._send(http, request, number, intended_s)
        named = request.extensions.get(_ANSWERED_BY)
        slot = slots.Slot(named) if named in set(slots.Slot) else None
        self._requests.append(_as_client_request(sample, slot))
        if slot is not None and (other := self.both.get(slot.other)) is not None:
            balance = self._request(http, number, other.headers())
            sample = await self._send(http, balance, number, anyio.current_time() - self._began_s)
            self._balance.append(_as_client_request(sample, slot.other))

    def _request(self, http: httpx.AsyncClient, number: int, headers: Mapping[str, str]) -> httpx.Request:
        body = chat_body(self._endpoint.model, self._prompts.prompt((number,)), self._plan.output_tokens, _SEED)
        url = http.base_url.join(CHAT_PATH)
        return http.build_request("POST", url, content=json.dumps(body).encode(), headers=headers)

    async def _send(self, http: httpx.AsyncClient, request: httpx.Request, number: int, intended_s: float) -> Sample:
        return await send(http, request, Slot("client", 0, number, intended_s, ""), self._bench, self._began_s)


async def _keep_slot(response: httpx.Response) -> None:
    """Note which slot an answer came from beside its request."""
    response.request.extensions[_ANSWERED_BY] = response.headers.get(slots.SLOT_HEADER)


def _as_client_request(sample: Sample, slot: slots.Slot | None) -> ClientRequest:
    error = f"{sample.error}: {sample.error_detail}"[:_SHOWN_CHARACTERS] if sample.error else ""
    return ClientRequest(
        sent_s=sample.sent_s,
        ended_s=sample.end_s,
        ttft_s=next(iter(sample.values_s(Metric.TTFT)), None),
        slot=slot,
        error=error,
    )
