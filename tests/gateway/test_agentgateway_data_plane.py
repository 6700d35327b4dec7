"""What agentgateway's data plane does with HTTPRoutes, beyond what both gateways are asked for."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import httpx
import pytest

from tests.gateway.engines import (
    PORT,
    answers,
    ask,
    available,
    completion,
    engine,
    gaps_of_a_stream,
    route,
    service,
    where_they_land,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ci.node.control_plane import ControlPlane
    from ci.node.envoy_gateway import Gateway
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

Json = dict[str, Any]
Record: TypeAlias = "Callable[[str, object], None]"

NAMESPACE = "data-plane"
MODEL = "m"
ITL_MS = 100
TOKENS = 12


def host(name: str) -> str:
    return f"{name}.data-plane.test"


@pytest.fixture(scope="module")
def engines(plane: ControlPlane, gateway: Gateway, standin: Standin) -> str:
    """Three engines and the routes to them; gives the Gateway's URL."""

    async def apply() -> None:
        flags = (f"--served-model-name={MODEL}",)
        slow = f"--standin-itl-ms={ITL_MS}"
        await plane.kubectl.apply(
            [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
                *engine("first", standin.engine, NAMESPACE, *flags),
                *engine("second", standin.engine, NAMESPACE, *flags),
                *engine("slow", standin.engine, NAMESPACE, *flags, slow),
                *routes(),
            ]
        )
        await available(plane.kubectl, NAMESPACE, "first", "second", "slow")

    anyio.run(apply)
    return gateway.url


def routes() -> list[Json]:
    regular = {"path": {"type": "RegularExpression", "value": "^/v1/.*$"}}
    marked = {"headers": [{"type": "Exact", "name": "X-Canary", "value": "yes"}]}
    backend = {"group": "agentgateway.dev", "kind": "AgentgatewayBackend", "name": "by-address"}
    rules: dict[str, list[Json]] = {
        "regular": [{"matches": [regular], "backendRefs": [service("first")]}],
        "weighted": [{"backendRefs": [service("first", 90), service("second", 10)]}],
        "marked": [
            {"matches": [marked], "backendRefs": [service("second")]},
            {"backendRefs": [service("first")]},
        ],
        "slow": [{"backendRefs": [service("slow")], "timeouts": {"request": "30s"}}],
        "short": [{"backendRefs": [service("slow")], "timeouts": {"request": "500ms"}}],
        "backend": [{"backendRefs": [backend]}],
    }
    return [route(name, NAMESPACE, host(name), its) for name, its in rules.items()]


@pytest.fixture
async def client(engines: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=engines, trust_env=False, timeout=60) as client:
        yield client


async def test_a_regular_expression_matches_a_path(client: httpx.AsyncClient) -> None:
    await answers(client, host("regular"), completion(MODEL))
    other = await client.get("/metrics", headers={"Host": host("regular")})
    assert other.status_code == 404


async def test_weights_share_the_requests(client: httpx.AsyncClient, record_testsuite_property: Record) -> None:
    await answers(client, host("weighted"), completion(MODEL))
    landed = await where_they_land(client, host("weighted"), [completion(MODEL)] * 500)
    assert sum(landed.values()) == 500
    second = sum(count for pod, count in landed.items() if pod.startswith("second-"))
    first = sum(count for pod, count in landed.items() if pod.startswith("first-"))
    assert first + second == 500
    record_testsuite_property("weights 90/10, of 500", f"{first} and {second}")
    # Of a fair choice fewer than one run in ten thousand is outside: 50 expected, a standard deviation of 6.7.
    assert 24 <= second <= 76


async def test_a_header_chooses_the_backend(client: httpx.AsyncClient) -> None:
    marked = await answers(client, host("marked"), completion(MODEL), {"X-Canary": "yes"})
    assert marked.pod.startswith("second-")
    for headers in ({}, {"X-Canary": "no"}):
        assert (await answers(client, host("marked"), completion(MODEL), headers)).pod.startswith("first-")


async def test_a_request_ends_at_the_route_s_timeout(
    client: httpx.AsyncClient, record_testsuite_property: Record
) -> None:
    await answers(client, host("short"), completion(MODEL))
    late = await ask(client, host("short"), completion(MODEL, tokens=30))
    record_testsuite_property("timeout of 500 ms", f"{late.status} after {late.took_s:.2f} s: {late.text}")
    assert late.status == 504
    assert late.took_s < 2


async def test_a_stream_arrives_token_by_token(client: httpx.AsyncClient, record_testsuite_property: Record) -> None:
    await answers(client, host("slow"), completion(MODEL))
    gaps = await gaps_of_a_stream(client, host("slow"), completion(MODEL, tokens=TOKENS))
    told = f"{min(gaps) * 1e3:.1f} to {max(gaps) * 1e3:.1f} ms, median {median(gaps) * 1e3:.1f}"
    record_testsuite_property(f"gaps of {TOKENS} tokens {ITL_MS} ms apart", told)
    # A gateway that buffers gives many of them at once: gaps of nothing and one that is as long as the answer.
    assert min(gaps) > ITL_MS / 1e3 / 2
    assert max(gaps) < ITL_MS / 1e3 * 4


async def test_a_backend_of_its_own_kind_is_reached(client: httpx.AsyncClient, plane: ControlPlane) -> None:
    address = await plane.kubectl(
        "get", f"--namespace={NAMESPACE}", "service/first", "--output=jsonpath={.spec.clusterIP}"
    )
    backend = {
        "apiVersion": "agentgateway.dev/v1alpha1",
        "kind": "AgentgatewayBackend",
        "metadata": {"name": "by-address", "namespace": NAMESPACE},
        "spec": {"static": {"host": address, "port": PORT}},
    }
    before = await ask(client, host("backend"), completion(MODEL))
    assert before.status >= 500
    await plane.kubectl.apply([backend])
    assert (await answers(client, host("backend"), completion(MODEL))).pod.startswith("first-")


async def test_no_request_is_lost_while_a_backend_rolls(
    client: httpx.AsyncClient, plane: ControlPlane, record_testsuite_property: Record
) -> None:
    """A rollout under load: agentgateway learns of endpoints in time when the engine drains before it ends."""
    await answers(client, host("regular"), completion(MODEL))
    drain = {"preStop": {"sleep": {"seconds": 3}}}
    pod = {"containers": [{"name": "engine", "lifecycle": drain}], "terminationGracePeriodSeconds": 10}
    await patch_deployment(plane, "first", {"spec": {"template": {"spec": pod}}})
    finished = anyio.Event()
    landed: list[int] = []

    async def load() -> None:
        while not finished.is_set():
            landed.append((await ask(client, host("regular"), completion(MODEL))).status)

    async def roll() -> None:
        await patch_deployment(plane, "first", {"spec": {"template": {"metadata": {"annotations": {"rolled": "1"}}}}})
        finished.set()

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(load)
        group.start_soon(roll)
    record_testsuite_property(
        "rollout under load", f"{len(landed)} requests, {sum(status != 200 for status in landed)} failed"
    )
    assert set(landed) == {200}


async def patch_deployment(plane: ControlPlane, name: str, patch: Json) -> None:
    await plane.kubectl("patch", f"--namespace={NAMESPACE}", f"deployment/{name}", f"--patch={json.dumps(patch)}")
    await plane.kubectl("rollout", "status", f"--namespace={NAMESPACE}", f"deployment/{name}", "--timeout=120s")
