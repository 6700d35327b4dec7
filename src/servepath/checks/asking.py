"""Asking a path through the gateway, and the curl line that asks the same."""

from __future__ import annotations

import json
import shlex
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from servepath.errors import ClusterError
from servepath.serving.model import request_headers
from servepath.serving.slots import SLOT_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from servepath.checks.context import Tools
    from servepath.serving.model import Endpoint
    from servepath.serving.slots import Slot

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MAX_TOKENS = 8
MODELS = "/v1/models"
SHOWN_CHARS = 200
KEY_IN_SHELL = '"Authorization: Bearer $VLLM_API_KEY"'


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a path.

    Attributes:
        base_url: the gateway's URL.
        host: the Host header, which the gateway routes by.
        path: the URL's path.
        body: what is posted as application/json; None for a GET.
        key: the bearer key that is sent, empty for none.
        slot: the slot of a canary that is asked, whatever the weights; None for the stable hostname.
    """

    base_url: str
    host: str
    path: str
    body: str | None = None
    key: str = field(default="", repr=False)
    slot: Slot | None = None

    @property
    def method(self) -> str:
        """POST with a body, else GET."""
        return "GET" if self.body is None else "POST"

    @property
    def url(self) -> str:
        """The whole URL."""
        return self.base_url.rstrip("/") + self.path

    def headers(self) -> dict[str, str]:
        """Give the headers that are sent."""
        headers = request_headers(self.host, self.key)
        if self.slot is not None:
            headers[SLOT_HEADER] = str(self.slot)
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def curl(self) -> str:
        """Give the curl line that asks the same; a key is read from the shell's VLLM_API_KEY and never written out."""
        words = ["curl", "-sS", "-i", "-H", shlex.quote(f"Host: {self.host}")]
        if self.slot is not None:
            words += ["-H", shlex.quote(f"{SLOT_HEADER}: {self.slot}")]
        if self.key:
            words += ["-H", KEY_IN_SHELL]
        if self.body is not None:
            words += ["-H", shlex.quote("Content-Type: application/json"), "-d", shlex.quote(self.body)]
        return " ".join([*words, shlex.quote(self.url)])


def get(endpoint: Endpoint, path: str) -> Question:
    """Give a GET with the endpoint's key."""
    return Question(endpoint.base_url, endpoint.host, path, key=endpoint.api_key, slot=endpoint.slot)


def chat(endpoint: Endpoint, text: str, **fields: Any) -> Question:
    """Give a chat completion of one user message at temperature 0; `fields` override or add to its body."""
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        **fields,
    }
    return Question(endpoint.base_url, endpoint.host, CHAT, json.dumps(body), endpoint.api_key, endpoint.slot)


def completion(endpoint: Endpoint, prompt: str) -> Question:
    """Give a plain completion of a prompt at temperature 0."""
    body = {"model": endpoint.model, "prompt": prompt, "temperature": 0, "max_tokens": MAX_TOKENS}
    return Question(endpoint.base_url, endpoint.host, COMPLETIONS, json.dumps(body), endpoint.api_key, endpoint.slot)


async def ask(tools: Tools, question: Question) -> httpx.Response:
    """Send a question and read the whole answer.

    Raises:
        ClusterError: no HTTP answer came.
    """
    async with opened(tools, question) as response:
        await response.aread()
        return response


@asynccontextmanager
async def opened(tools: Tools, question: Question) -> AsyncIterator[httpx.Response]:
    """Send a question and give the response before its body was read.

    Raises:
        ClusterError: no HTTP answer came, or it broke off.
    """
    try:
        async with tools.http.stream(
            question.method, question.url, headers=question.headers(), content=question.body
        ) as response:
            yield response
    except httpx.HTTPError as error:
        raise ClusterError(
            f"{question.method} {question.path} got no complete answer: {type(error).__name__} {error}".rstrip(),
            where=question.base_url,
            next_command=question.curl(),
        ) from error


def shown(response: httpx.Response) -> str:
    """Give an answer in one short line: status and the beginning of its body."""
    text = " ".join(response.text.split())
    return f"{response.status_code} {text[:SHOWN_CHARS]}".rstrip()


def json_object(response: httpx.Response) -> Mapping[str, Any]:
    """Give the answer's JSON object, an empty one when it is something else."""
    try:
        value = response.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
