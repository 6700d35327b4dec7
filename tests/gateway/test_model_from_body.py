"""manifests/platform/agentgateway/model-from-body.yaml on the real data plane: the body's model becomes a header."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import httpx
import pytest

from tests.gateway.engines import Reply, answers, ask, available, completion, engine, route, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ci.node.control_plane import ControlPlane
    from ci.node.envoy_gateway import Gateway
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

Json = dict[str, Any]
Record: TypeAlias = "Callable[[str, object], None]"

NAMESPACE = "by-model"
# The listener's own host: see manifests/platform/agentgateway/listener.yaml.
HOST = "models.servepath.test"
HEADER = "X-Gateway-Base-Model-Name"


@pytest.fixture(scope="module")
def two_models(plane: ControlPlane, gateway: Gateway, standin: Standin) -> str:
    """Two engines with a model each, behind one host; gives the Gateway's URL."""

    async def apply() -> None:
        rules = [by_model("alpha", "alpha"), by_model("beta/Beta-7B", "beta")]
        await plane.kubectl.apply(
            [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
                *engine("alpha", standin.engine, NAMESPACE, "--served-model-name=alpha"),
                *engine("beta", standin.engine, NAMESPACE, "--served-model-name=beta/Beta-7B"),
                route("models", NAMESPACE, HOST, rules, listener="models"),
            ]
        )
        await available(plane.kubectl, NAMESPACE, "alpha", "beta")

    anyio.run(apply)
    return gateway.url


def by_model(model: str, name: str) -> Json:
    headers = [{"type": "Exact", "name": HEADER, "value": model}]
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}, "headers": headers}],
        "backendRefs": [service(name)],
    }


@pytest.fixture
async def client(two_models: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=two_models, trust_env=False, timeout=60) as client:
        yield client


@pytest.mark.parametrize(("model", "pod"), [("alpha", "alpha-"), ("beta/Beta-7B", "beta-")])
async def test_the_model_in_the_body_chooses_the_engine(client: httpx.AsyncClient, model: str, pod: str) -> None:
    assert (await answers(client, HOST, completion(model))).pod.startswith(pod)


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient, record_testsuite_property: Record) -> None:
    await answers(client, HOST, completion("alpha"))
    reply = await ask(client, HOST, completion("gamma"))
    assert (reply.status, reply.pod) == (404, "")
    record_testsuite_property("unknown model", f"{reply.status} {reply.text!r}")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(json.dumps({"prompt": "x"}).encode(), id="names no model"),
        pytest.param(json.dumps({"model": None, "prompt": "x"}).encode(), id="null"),
        pytest.param(json.dumps({"model": ["alpha"], "prompt": "x"}).encode(), id="a list"),
        pytest.param(b"alpha", id="no JSON"),
        pytest.param(b"", id="empty"),
    ],
)
@pytest.mark.parametrize(
    "headers", [{}, {HEADER: "alpha"}, {HEADER.lower(): "alpha"}], ids=["plain", "forged", "lower"]
)
async def test_a_body_without_a_model_reaches_no_engine(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str]
) -> None:
    """Even where the client sends the header that the gateway sets."""
    await answers(client, HOST, completion("alpha"))
    sent = {"Host": HOST, "Content-Type": "application/json", **headers}
    answer = await client.post("/v1/completions", content=content, headers=sent)
    assert (answer.status_code, answer.headers.get("X-Served-By", "")) == (404, "")


async def test_the_body_goes_before_the_client_s_header(client: httpx.AsyncClient) -> None:
    await answers(client, HOST, completion("alpha"))
    reply = await answers(client, HOST, completion("beta/Beta-7B"), {HEADER: "alpha"})
    assert reply.pod.startswith("beta-")


@pytest.mark.parametrize("size_kib", [512, 1900, 4000])
async def test_a_long_prompt_is_routed_or_refused_in_words(
    client: httpx.AsyncClient, size_kib: int, record_testsuite_property: Record
) -> None:
    """The gateway holds 2 MiB of a body: up to there it is routed, and above it is refused, never misrouted."""
    await answers(client, HOST, completion("alpha"))
    body = completion("alpha", prompt="word " * (size_kib * 1024 // 5))
    try:
        reply = await ask(client, HOST, body)
    except (httpx.ReadError, httpx.WriteError) as error:
        # It has answered before it was sent the whole body, and closed.
        reply = Reply(404, "", 0, repr(error))
    record_testsuite_property(f"a body of {size_kib} KiB", f"{reply.status} {reply.pod} {reply.text[:80]!r}")
    if size_kib < 2048:
        assert (reply.status, reply.pod[:6]) == (200, "alpha-")
    else:
        assert (reply.status, reply.pod) == (404, "")


async def test_another_listener_s_requests_are_not_read(client: httpx.AsyncClient, plane: ControlPlane) -> None:
    """A route that is chosen by its host pays nothing: its bodies are not held, and its headers are the client's."""
    await plane.kubectl.apply([route("plain", NAMESPACE, "plain.by-model.test", [by_model("alpha", "alpha")])])
    told = await answers(client, "plain.by-model.test", completion("alpha"), {HEADER: "alpha"})
    assert told.pod.startswith("alpha-")
    assert (await ask(client, "plain.by-model.test", completion("alpha"))).status == 404
