"""What KServe v0.19.0 does in Standard mode, on its own manager and webhooks. servepath is built on these facts."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ci.node.control_plane import ControlPlane
    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

MODEL = "oci://127.0.0.1:5000/servepath/model@sha256:" + "a" * 64
ENGINE = "127.0.0.1:5000/servepath/engine@sha256:" + "e" * 64
RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
CONTAINER = {
    "name": "kserve-container",
    "image": ENGINE,
    "env": [{"name": "STORAGE_URI", "value": MODEL}],
    "ports": [{"containerPort": 8000}],
    "resources": RESOURCES,
}


class Objects:
    """InferenceServices in a namespace of their own."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.kubectl, self.namespace = plane.kubectl, namespace

    async def apply(self, name: str, **predictor: Any) -> None:
        isvc = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"predictor": predictor},
        }
        await self.kubectl.apply([isvc])

    async def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.kubectl("get", self._in, "--output=json", *arguments))
        return found

    async def wait(self, condition: str, *arguments: str) -> None:
        await self.kubectl("wait", self._in, f"--for={condition}", "--timeout=60s", *arguments)

    async def mutated_pod(self, deployment: str) -> dict[str, Any]:
        """The pod of a Deployment's template, as the webhook leaves it; it is not stored."""
        template = (await self.get(f"deployment/{deployment}"))["spec"]["template"]
        metadata = {**template["metadata"], "name": "probe", "namespace": self.namespace}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        content = json.dumps(pod).encode()
        made = await self.kubectl("create", "--dry-run=server", "--output=json", "--filename=-", content=content)
        found: dict[str, Any] = json.loads(made)["spec"]
        return found

    @property
    def _in(self) -> str:
        return f"--namespace={self.namespace}"


@pytest.fixture
async def objects(plane: ControlPlane, cluster: Cluster) -> AsyncIterator[Objects]:  # noqa: ARG001 - KServe must run
    namespace = f"facts-{uuid.uuid4().hex[:8]}"
    await plane.kubectl("create", "namespace", namespace)
    # A pod needs its service account, which a controller makes.
    await plane.kubectl("wait", f"--namespace={namespace}", "--for=create", "--timeout=30s", "serviceaccount/default")
    yield Objects(plane, namespace)
    await plane.kubectl("delete", "namespace", namespace, "--wait=false")


async def test_storage_uri_of_the_container_makes_a_modelcar(objects: Objects) -> None:
    await objects.apply("model", containers=[CONTAINER])
    await objects.wait("create", "deployment/model-predictor")
    pod = await objects.mutated_pod("model-predictor")
    assert pod["shareProcessNamespace"] is True
    assert [one["name"] for one in pod["initContainers"]] == ["modelcar-init"]
    engine, modelcar = pod["containers"]
    assert (engine["name"], modelcar["name"]) == ("kserve-container", "modelcar")
    assert modelcar["image"] == pod["initContainers"][0]["image"] == MODEL.removeprefix("oci://")
    assert modelcar["securityContext"]["runAsUser"] == engine["securityContext"]["runAsUser"] == 1010
    assert {"name": "MODEL_INIT_MODE", "value": "async"} in engine["env"]
    shared = [volume["name"] for volume in pod["volumes"] if "emptyDir" in volume]
    for container in (engine, modelcar):
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert [mounts[name] for name in shared if name in mounts] == ["/mnt"]


async def test_without_a_storage_uri_there_is_no_modelcar(objects: Objects) -> None:
    await objects.apply("bare", containers=[{**CONTAINER, "env": []}])
    await objects.wait("create", "deployment/bare-predictor")
    pod = await objects.mutated_pod("bare-predictor")
    assert [one["name"] for one in pod["containers"]] == ["kserve-container"]
    assert not pod.get("shareProcessNamespace")


async def test_canary_traffic_percent_is_ignored_in_silence(objects: Objects) -> None:
    await objects.apply("canary", containers=[CONTAINER])
    await objects.wait("create", "deployment/canary-predictor")
    newer = ENGINE.replace("e" * 64, "f" * 64)
    await objects.apply("canary", canaryTrafficPercent=10, containers=[{**CONTAINER, "image": newer}])
    image = "jsonpath={.spec.template.spec.containers[0].image}=" + newer
    await objects.wait(image, "deployment/canary-predictor")
    # A canary would keep the older version beside the newer one: there is one Deployment, and it is all of the newer.
    deployments = (await objects.get("deployments"))["items"]
    assert [one["metadata"]["name"] for one in deployments] == ["canary-predictor"]
    conditions = (await objects.get("inferenceservice/canary"))["status"]["conditions"]
    assert not [one for one in conditions if "canary" in (one.get("message") or "").lower()]


async def test_model_and_containers_together_are_refused(objects: Objects) -> None:
    model = {"modelFormat": {"name": "huggingface"}, "storageUri": MODEL}
    with pytest.raises(ClusterError, match="denied the request"):
        await objects.apply("both", model=model, containers=[CONTAINER])


async def test_requests_without_limits_exceed_the_limit_that_kserve_adds(objects: Objects) -> None:
    greedy = {**CONTAINER, "resources": {"requests": {"cpu": "4"}}}
    await objects.apply("greedy", containers=[greedy])
    await objects.wait("jsonpath={.status.conditions[?(@.type=='PredictorReady')].status}=False", "isvc/greedy")
    conditions = {one["type"]: one for one in (await objects.get("isvc/greedy"))["status"]["conditions"]}
    assert "must be less than or equal to cpu limit of 1" in conditions["PredictorReady"]["message"]
    assert (await objects.get("deployments"))["items"] == []


async def test_a_limit_beside_the_request_is_enough(objects: Objects) -> None:
    fitting = {**CONTAINER, "resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "4"}}}
    await objects.apply("fitting", containers=[fitting])
    await objects.wait("create", "deployment/fitting-predictor")
