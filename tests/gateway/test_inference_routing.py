"""manifests/inference on the real gateway and picker: where requests land, and in which order they are served."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import httpx
import pytest
import yaml

from ci.node import endpoint_picker
from servepath.manifests import manifests_directory
from tests.contract.kubernetes_schemas import LOCK
from tests.gateway.engines import PORT, SERVED_BY, answers, available, completion, gaps_of_a_stream, where_they_land

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from ci.node.envoy_gateway import Gateway
    from ci.node.kubectl import Kubectl
    from ci.node.registry import Registry
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

Json = dict[str, Any]
Record: TypeAlias = "Callable[[str, object], None]"

NAMESPACE = "servepath"
HOST = "models.servepath.test"
MODEL = "qwen2.5-0.5b-instruct"
KEY = "key-of-the-test"
HEADERS = {"Authorization": f"Bearer {KEY}"}
REPLICAS = 3
# Each engine runs one completion at a time, at 20 ms a token.
ENGINE_ARGS = ("--max-num-seqs=1", "--standin-itl-ms=20")
WAITING = re.compile(r"^vllm:num_requests_waiting\{.*\} [1-9]", re.MULTILINE)
OVERLAYS = manifests_directory() / "inference" / "overlays"


@dataclass(frozen=True, slots=True)
class Images:
    """What the manifests' images are replaced by."""

    engine: str
    modelcar: str
    picker: str

    def put_into(self, text: str) -> str:
        """Replace the images of rendered manifests."""
        locked = {name: entry["image"] for name, entry in LOCK["images"].items()}
        for name, own in (
            ("vllm-cpu", self.engine),
            ("prebuilt-modelcar", self.modelcar),
            ("endpoint-picker", self.picker),
        ):
            text = text.replace(locked[name], own)
        # The raw path's volume is named by the model's digest.
        return text.replace(locked["prebuilt-modelcar"].partition("@")[2], self.modelcar.partition("@")[2])


@pytest.fixture(scope="module")
def images(standin: Standin, picker: Path, image_registry: Registry) -> Images:
    pushed = anyio.run(endpoint_picker.push_image, picker, image_registry.address)
    return Images(standin.engine, standin.modelcars[0], pushed)


@pytest.fixture(scope="module")
def pool(plane: ControlPlane, gateway: Gateway, images: Images) -> str:
    """One pool over three replicas of the raw path; gives the Gateway's URL."""

    async def apply() -> None:
        await apply_engines(plane.kubectl, images, "qwen-raw", REPLICAS)
        await apply_overlay(plane.kubectl, images, "one")
        await available(plane.kubectl, NAMESPACE, "qwen-raw", "qwen-picker")

    anyio.run(apply)
    return gateway.url


async def apply_engines(kubectl: Kubectl, images: Images, name: str, replicas: int) -> None:
    rendered = await kubectl("kustomize", str(OVERLAYS / "replicas-cpu"))
    objects = list(yaml.safe_load_all(images.put_into(rendered).replace("qwen-raw", name)))
    for obj in objects:
        if obj["kind"] == "Deployment":
            obj["spec"]["replicas"] = replicas
            engine = obj["spec"]["template"]["spec"]["containers"][0]
            engine["args"] = [*engine["args"], *ENGINE_ARGS]
            engine["resources"] = {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": {"VLLM_API_KEY": KEY},
    }
    await kubectl.apply([*(obj for obj in objects if obj["kind"] == "Namespace"), secret, *objects])


async def apply_overlay(kubectl: Kubectl, images: Images, overlay: str) -> None:
    rendered = await kubectl("kustomize", str(OVERLAYS / overlay))
    await kubectl.apply(list(yaml.safe_load_all(images.put_into(rendered))))


@pytest.fixture
async def client(pool: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=pool, trust_env=False, timeout=120, headers=HEADERS) as client:
        await answers(client, HOST, completion(MODEL))
        yield client


async def engine_pods(kubectl: Kubectl, name: str = "qwen-raw") -> dict[str, str]:
    """The addresses of an engine's pods, by their names."""
    listed = json.loads(
        await kubectl(
            "get", "pods", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/instance={name}", "--output=json"
        )
    )
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in listed["items"]}


def different(count: int) -> list[Json]:
    """Bodies whose prompts share nothing."""
    return [completion(MODEL, prompt=f"{number} is a number, and so is {number + 1}") for number in range(count)]


async def test_the_gateway_resolves_the_pool(client: httpx.AsyncClient, plane: ControlPlane) -> None:
    assert client
    found = json.loads(await plane.kubectl("get", f"--namespace={NAMESPACE}", "inferencepool/qwen", "--output=json"))
    conditions = {one["type"]: one["status"] for one in found["status"]["parents"][0]["conditions"]}
    assert conditions == {"Accepted": "True", "ResolvedRefs": "True"}


async def test_every_replica_serves(
    client: httpx.AsyncClient, plane: ControlPlane, record_testsuite_property: Record
) -> None:
    landed = await where_they_land(client, HOST, different(120), at_once=2 * REPLICAS)
    record_testsuite_property(f"120 requests over {REPLICAS} replicas", sorted(landed.values()))
    assert set(landed) == set(await engine_pods(plane.kubectl))
    assert min(landed.values()) >= 12


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/completions", json=completion("another"), headers={"Host": HOST})
    assert (answer.status_code, answer.headers.get(SERVED_BY, "")) == (404, "")


async def test_the_engine_s_key_is_demanded(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/completions", json=completion(MODEL), headers={"Host": HOST, "Authorization": "Bearer wrong"}
    )
    assert answer.status_code == 401


async def test_a_prompt_that_a_replica_knows_goes_back_to_it(client: httpx.AsyncClient) -> None:
    prefix = " ".join(f"word-{number}" for number in range(1000))
    pods = set()
    for question in range(12):
        pods.add((await answers(client, HOST, completion(MODEL, prompt=f"{prefix} question {question}"))).pod)
    assert len(pods) == 1


async def test_a_busy_replica_is_passed_over(client: httpx.AsyncClient, plane: ControlPlane) -> None:
    name, address = min((await engine_pods(plane.kubectl)).items())
    landed: Counter[str] = Counter()
    async with (
        httpx.AsyncClient(base_url=f"http://{address}:{PORT}", trust_env=False, timeout=60, headers=HEADERS) as direct,
        anyio.create_task_group() as group,
    ):
        for _ in range(2):
            group.start_soon(lambda: direct.post("/v1/completions", json=completion(MODEL, tokens=400)))
        await waits(direct)
        for body in different(20):
            landed[(await answers(client, HOST, body)).pod] += 1
        group.cancel_scope.cancel()
    assert landed[name] == 0
    assert sum(landed.values()) == 20


async def waits(direct: httpx.AsyncClient) -> None:
    """Await that a request waits in an engine."""
    with anyio.fail_after(20):
        while True:
            metrics = await direct.get("/metrics")
            if WAITING.search(metrics.text):
                return
            await anyio.sleep(0.05)


async def test_a_stream_is_not_held_back(client: httpx.AsyncClient, record_testsuite_property: Record) -> None:
    """The picker sees every chunk of an answer: what it sees must still arrive token by token."""
    gaps = await gaps_of_a_stream(client, HOST, completion(MODEL, tokens=30))
    told = f"{min(gaps) * 1e3:.1f} to {max(gaps) * 1e3:.1f} ms, median {median(gaps) * 1e3:.1f}"
    record_testsuite_property("gaps of 30 tokens 20 ms apart", told)
    assert 0.01 < median(gaps) < 0.04
    assert max(gaps) < 0.2


async def test_interactive_goes_before_batch(client: httpx.AsyncClient, record_testsuite_property: Record) -> None:
    """Many batch requests keep the replicas busy; what is interactive and comes later is served before most."""
    took: dict[str, list[float]] = {"batch": [], "interactive": []}
    ended: list[str] = []
    refused: Counter[str] = Counter()

    async def one(objective: str, number: int) -> None:
        start = time.monotonic()
        body = completion(MODEL, prompt=f"{objective} {number}", tokens=25)
        headers = {"Host": HOST, "x-gateway-inference-objective": objective}
        while (answer := await client.post("/v1/completions", json=body, headers=headers)).status_code == 429:
            refused[objective] += 1
            await anyio.sleep(0.2)
        assert answer.status_code == 200, answer.text
        took[objective].append(time.monotonic() - start)
        ended.append(objective)

    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(one, "batch", number)
            await anyio.sleep(0.02)
        for number in range(6):
            group.start_soon(one, "interactive", number)
    overtaken = len(ended) - 1 - max(index for index, objective in enumerate(ended) if objective == "interactive")
    record_testsuite_property("60 batch requests, then 6 interactive", f"{overtaken} batch ended after all of those")
    record_testsuite_property("answers of 429", dict(refused))
    for objective, times in took.items():
        record_testsuite_property(f"seconds of {objective}", f"median {median(times):.2f}, longest {max(times):.2f}")
    assert refused["interactive"] == 0
    assert overtaken >= 25
    assert max(took["interactive"]) < median(took["batch"])


async def test_without_its_picker_a_pool_refuses_and_then_goes_on(
    client: httpx.AsyncClient, plane: ControlPlane, record_testsuite_property: Record
) -> None:
    """`failureMode: FailOpen` helps few requests that have a body: agentgateway v1.2.1 answers most with 500."""
    scale = ("scale", f"--namespace={NAMESPACE}", "deployment/qwen-picker")
    await plane.kubectl(*scale, "--replicas=0")
    try:
        selector = "--selector=app.kubernetes.io/instance=qwen-picker"
        await plane.kubectl("wait", f"--namespace={NAMESPACE}", "pods", selector, "--for=delete", "--timeout=60s")
        landed = await where_they_land(client, HOST, different(30), at_once=3)
    finally:
        await plane.kubectl(*scale, "--replicas=1")
        await available(plane.kubectl, NAMESPACE, "qwen-picker")
    record_testsuite_property("30 requests without the picker", dict(landed))
    assert landed["500"]
    assert set(landed) <= {"500", *await engine_pods(plane.kubectl)}
    assert (await answers(client, HOST, completion(MODEL))).pod in await engine_pods(plane.kubectl)


async def test_two_pools_share_the_requests(
    client: httpx.AsyncClient, plane: ControlPlane, images: Images, record_testsuite_property: Record
) -> None:
    await apply_engines(plane.kubectl, images, "qwen-next-raw", 1)
    await apply_overlay(plane.kubectl, images, "split")
    await available(plane.kubectl, NAMESPACE, "qwen-next-raw", "qwen-picker-next")
    second = set(await engine_pods(plane.kubectl, "qwen-next-raw"))
    with anyio.fail_after(60):
        while (await answers(client, HOST, completion(MODEL))).pod not in second:
            pass
    landed = await where_they_land(client, HOST, different(300), at_once=3)
    there = sum(count for pod, count in landed.items() if pod in second)
    record_testsuite_property("split 90/10, of 300", f"{300 - there} and {there}")
    assert set(landed) <= {*second, *await engine_pods(plane.kubectl)}
    # 30 expected, a standard deviation of 5.2: fewer than one fair run in ten thousand is outside.
    assert 10 <= there <= 51
