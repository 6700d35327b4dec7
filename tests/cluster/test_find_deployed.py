# ruff: noqa: ASYNC240 - a test has nothing else to do while it waits
"""What `servepath deploy` left is found again on a real API server, with its key and without showing it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from lightkube.codecs import from_dict
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Secret
from lightkube.types import PatchType

from servepath.cli.results import print_json
from servepath.cluster.diagnostics import collect
from servepath.cluster.objects import ensure_namespace
from servepath.errors import ClusterError
from servepath.report.model import Report
from servepath.report.write import write_report
from servepath.serving.deploy import apply_kserve, apply_raw
from servepath.serving.find import find
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import CPU_SMALL
from servepath.serving.render import host_of
from tests.cluster.session import session
from tests.unit.report.example_runs import RUN

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

KEY = "planted-key-0123456789"
MODEL = "127.0.0.1:5000/servepath/none@sha256:" + "a" * 64
ENGINE = "127.0.0.1:5000/servepath/none@sha256:" + "b" * 64


@pytest.fixture
def spec() -> ServingSpec:
    # No pod may run: there is no kubelet, and nothing is awaited.
    return ServingSpec(f"find-{uuid.uuid4().hex[:8]}", "smol", "smollm2", MODEL, ENGINE, CPU_SMALL)


async def test_the_raw_path_is_found_as_it_was_applied(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply_raw(client, cluster, spec, KEY)
        found, endpoint = await find(cluster, spec.namespace, spec.name, ServingPath.RAW, spec.profile)
    assert found == spec
    assert endpoint.host == host_of(spec, ServingPath.RAW)
    assert endpoint.workload == "smol-raw"
    assert endpoint.modelcar_digest == "sha256:" + "a" * 64
    assert endpoint.engine_image == ENGINE
    assert endpoint.base_url == cluster.gateway_url
    assert endpoint.api_key == KEY


async def test_its_key_is_in_its_secret_and_nowhere_else(
    cluster: Cluster, spec: ServingSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with session(cluster, spec) as client:
        objects = await apply_raw(client, cluster, spec, KEY)
        _, endpoint = await find(cluster, spec.namespace, spec.name, ServingPath.RAW, spec.profile)
        await collect(cluster, spec.namespace, tmp_path / "diagnostics")
        secret = await client.get(Secret, "smol-raw", namespace=spec.namespace)
    assert secret.data is not None
    print_json(endpoint)
    printed = capsys.readouterr().out
    assert endpoint.host in printed
    assert "api_key" not in printed
    write_report(Report(RUN, cluster=cluster, deployments=(endpoint,)), tmp_path / "report")
    forms = [KEY, secret.data["VLLM_API_KEY"]]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "deployments.yaml" for path in written)
    for form in forms:
        assert form not in printed
        assert form not in repr(endpoint) + repr(objects)
        for path in written:
            assert form.encode() not in path.read_bytes(), path


async def test_what_is_not_deployed_says_so(cluster: Cluster, spec: ServingSpec) -> None:
    for path in ServingPath:
        with pytest.raises(ClusterError, match="not deployed") as caught:
            await find(cluster, spec.namespace, spec.name, path, spec.profile)
        assert f"{spec.namespace}/smol-{path}" in caught.value.where
        assert caught.value.next_command == "servepath deploy --help"


async def test_an_inferenceservice_that_is_not_ready_says_so_and_how_to_see_why(
    cluster: Cluster, spec: ServingSpec
) -> None:
    async with session(cluster, spec) as client:
        await apply_kserve(client, cluster, spec, KEY)
        with pytest.raises(ClusterError, match="not ready") as caught:
            await find(cluster, spec.namespace, spec.name, ServingPath.KSERVE, spec.profile)
    options = f"--kubeconfig {cluster.kubeconfig} -n {spec.namespace}"
    assert caught.value.next_command == f"kubectl {options} describe inferenceservice smol-kserve"


async def test_a_deployment_of_somebody_else_is_refused_in_one_line(cluster: Cluster, spec: ServingSpec) -> None:
    labels = {"app": "theirs"}
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "smol-raw", "namespace": spec.namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": ENGINE}]},
            },
        },
    }
    async with session(cluster, spec) as client:
        await ensure_namespace(client, spec.namespace)
        await client.create(from_dict(theirs))
        with pytest.raises(ClusterError) as caught:
            await find(cluster, spec.namespace, spec.name, ServingPath.RAW, spec.profile)
    assert "\n" not in caught.value.what
    assert f"{spec.namespace}/smol-raw" in caught.value.where


async def test_an_engine_whose_model_was_taken_out_is_refused(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply_raw(client, cluster, replace(spec, served_model_name="other"), KEY)
        await client.patch(
            Deployment,
            "smol-raw",
            [{"op": "remove", "path": "/spec/template/spec/initContainers"}],
            namespace=spec.namespace,
            patch_type=PatchType.JSON,
        )
        with pytest.raises(ClusterError, match="not as servepath deploys it") as caught:
            await find(cluster, spec.namespace, spec.name, ServingPath.RAW, spec.profile)
    assert caught.value.where == f"{spec.namespace}/smol-raw"
