"""Stand-in engines behind routes, and what a client sees of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.node.kubectl import Kubectl

Json = dict[str, Any]

SERVED_BY = "X-Served-By"
PORT = 8080


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        status: the HTTP status.
        pod: the engine's pod, empty where no engine answered.
        took_s: from the request to the last byte.
        text: the body.
    """

    status: int
    pod: str
    took_s: float
    text: str


def engine(name: str, image: str, namespace: str, *arguments: str, replicas: int = 1) -> list[Json]:
    """Give the Deployment and the Service of an engine without a model."""
    labels = {"app": name}
    container = {
        "name": "engine",
        "image": image,
        "args": [f"--port={PORT}", *arguments],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": labels, "ports": [{"port": PORT}]},
        },
    ]


def service(name: str, weight: int = 1) -> Json:
    """Give a route's reference to a Service."""
    return {"group": "", "kind": "Service", "name": name, "port": PORT, "weight": weight}


def route(name: str, namespace: str, host: str, rules: Sequence[Json], listener: str = "http") -> Json:
    """Give an HTTPRoute on the Gateway."""
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "kserve",
        "name": "kserve-ingress-gateway",
        "sectionName": listener,
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [parent], "hostnames": [host], "rules": list(rules)},
    }


def completion(model: str, prompt: str = "The capital of France is", tokens: int = 1, **more: Any) -> Json:
    """Give the body of a completion."""
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, **more}


async def ask(client: httpx.AsyncClient, host: str, body: Json, headers: Mapping[str, str] | None = None) -> Reply:
    """Ask for a completion."""
    start = time.monotonic()
    answer = await client.post("/v1/completions", json=body, headers={"Host": host, **(headers or {})})
    took_s = time.monotonic() - start
    return Reply(answer.status_code, answer.headers.get(SERVED_BY, ""), took_s, answer.text)


async def answers(client: httpx.AsyncClient, host: str, body: Json, headers: Mapping[str, str] | None = None) -> Reply:
    """Await the first completion that is no error: a route reaches the data plane a moment after it is applied.

    Raises:
        TimeoutError: there was none in 60 s.
    """
    with anyio.fail_after(60):
        while True:
            reply = await ask(client, host, body, headers)
            if reply.status == httpx.codes.OK:
                return reply
            await anyio.sleep(0.2)


async def where_they_land(
    client: httpx.AsyncClient, host: str, bodies: Sequence[Json], at_once: int = 8
) -> Counter[str]:
    """Ask for each completion and count the pods that answered, by name; an error counts by its status."""
    landed: Counter[str] = Counter()
    limiter = anyio.CapacityLimiter(at_once)

    async def one(body: Json) -> None:
        async with limiter:
            reply = await ask(client, host, body)
        landed[reply.pod if reply.status == httpx.codes.OK else str(reply.status)] += 1

    async with anyio.create_task_group() as group:
        for body in bodies:
            group.start_soon(one, body)
    return landed


async def gaps_of_a_stream(client: httpx.AsyncClient, host: str, body: Json) -> list[float]:
    """Stream a completion and give the seconds from each token to the next."""
    headers = {"Host": host}
    async with client.stream("POST", "/v1/completions", json={**body, "stream": True}, headers=headers) as answer:
        answer.raise_for_status()
        arrivals = [time.monotonic() async for line in answer.aiter_lines() if line.startswith("data: {")]
    # The last one has no token but the reason of the end, and comes with the token before it.
    return [later - earlier for earlier, later in pairwise(arrivals[:-1])]


async def available(kubectl: Kubectl, namespace: str, *deployments: str) -> None:
    """Await every replica of Deployments; the condition Available may be content with fewer."""
    for name in deployments:
        await kubectl("rollout", "status", f"--namespace={namespace}", f"deployment/{name}", "--timeout=180s")
