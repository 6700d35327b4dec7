"""One real completion through the gateway: the only proof that an engine serves.

`/health` is not: an engine with a model it cannot run answers 200 there and dies on the first request.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import anyio
import httpx

from servepath.errors import ClusterError
from servepath.serving.model import request_headers

_FINAL = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)
FIRST_COMPLETION_S = 60.0
"""How long one request for it may take at most, in seconds."""

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 3.0


class Attempt:
    """The requests for a first completion, and what the last of them came to (for the error of a spent budget).

    Args:
        base_url: the gateway's URL.
        host: the Host header that routes to the path.
        model: the served model name.
        api_key: the engine's key, empty for none.
        request_timeout_s: budget of one request, in seconds.
    """

    def __init__(self, base_url: str, host: str, model: str, api_key: str, request_timeout_s: float) -> None:
        self.last = "no request was made yet"
        self._url = f"{base_url.rstrip('/')}/v1/chat/completions"
        self._host = host
        self._model = model
        self._api_key = api_key
        self._timeout_s = request_timeout_s

    async def succeed(self) -> str:
        """Ask until the engine answers; the caller bounds the time.

        Returns:
            The text of the completion.

        Raises:
            ClusterError: the answer says that no later request will do better (400, 401, 403, 422).
        """
        delay_s = _FIRST_DELAY_S
        async with httpx.AsyncClient(timeout=self._timeout_s, trust_env=False) as http:
            while True:
                if (text := await self._ask(http)) is not None:
                    return text
                # Nothing tells when a gateway has programmed a route: it can only be asked again.
                await anyio.sleep(delay_s * random.uniform(0.8, 1.2))  # noqa: S311
                delay_s = min(delay_s * 1.5, _LONGEST_DELAY_S)

    async def _ask(self, http: httpx.AsyncClient) -> str | None:
        headers = request_headers(self._host, self._api_key)
        try:
            response = await http.post(self._url, json=first_token_body(self._model), headers=headers)
        except httpx.HTTPError as error:
            self.last = f"{type(error).__name__}: {error}"
            return None
        if response.status_code in _FINAL:
            raise ClusterError(
                f"the first completion got HTTP {response.status_code}: {response.text[:300]}",
                where=f"{self._url} (Host: {self._host})",
                expected="HTTP 200",
            )
        self.last = f"HTTP {response.status_code}: {response.text[:300]}"
        return completion_text(response)


def first_token_body(model: str) -> dict[str, Any]:
    """Give a chat request for one token and nothing more: its time is the time to the first token."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Say yes."}],
        "max_tokens": 1,
        "temperature": 0,
    }


def completion_text(response: httpx.Response) -> str | None:
    """Give the text of a chat completion, None where the response is none."""
    if response.status_code != HTTPStatus.OK:
        return None
    try:
        answer: Any = response.json()
    except ValueError:
        return None
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not choices:
        return None
    message = choices[0].get("message") or {}
    texts = [message.get(field) for field in ("content", "reasoning_content", "reasoning")]
    # A single token can be an empty text: it is an answer all the same.
    return next((text for text in texts if text), "" if "" in texts else None)
