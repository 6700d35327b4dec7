"""Both paths with the stand-in engine: deployed, and held to the same smoke checks as vLLM."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from servepath.checks.context import CheckContext
from servepath.checks.run import smoke
from servepath.evidence import Verdict
from servepath.serving.completion import first_token_body
from servepath.serving.deploy import deploy_kserve, deploy_raw
from servepath.serving.model import ServingSpec
from tests.cluster.session import session

if TYPE_CHECKING:
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult
    from servepath.serving.model import Endpoint
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]


def spec_of(standin: Standin, namespace: str, *engine_args: str) -> ServingSpec:
    profile = replace(standin.profile, engine_args=engine_args)
    return ServingSpec(namespace, "tiny", "tiny", standin.modelcars[0], standin.engine, profile)


async def test_the_smoke_checks_pass_on_both_paths(serving_cluster: Cluster, standin: Standin) -> None:
    spec = spec_of(standin, "standin")
    results: list[CheckResult] = []
    async with session(serving_cluster, spec):
        endpoints: list[Endpoint] = []

        async def raw() -> None:
            endpoints.append(await deploy_raw(serving_cluster, spec, "key-of-the-test"))

        async def kserve() -> None:
            endpoints.append(await deploy_kserve(serving_cluster, spec, "another-key"))

        async with anyio.create_task_group() as group:
            group.start_soon(raw)
            group.start_soon(kserve)
        by_path = {str(endpoint.path): endpoint for endpoint in endpoints}
        digest = spec.modelcar_reference.partition("@")[2]
        context = CheckContext(serving_cluster, spec, digest, by_path["raw"], by_path["kserve"])
        await smoke(context, results.append)
    assert [(one.name, one.subject, one.seen) for one in results if one.verdict is Verdict.FAIL] == []
    assert sum(one.verdict is Verdict.PASS for one in results) > 25


async def test_it_fails_as_often_as_it_is_told(serving_cluster: Cluster, standin: Standin) -> None:
    spec = spec_of(standin, "standin-errors", "--standin-error-percent=25")
    async with session(serving_cluster, spec):
        endpoint = await deploy_kserve(serving_cluster, spec, "another-key")
        async with httpx.AsyncClient(base_url=endpoint.base_url, trust_env=False) as client:
            statuses = [
                (
                    await client.post(
                        "/v1/chat/completions", headers=endpoint.headers(), json=first_token_body(endpoint.model)
                    )
                ).status_code
                for _ in range(40)
            ]
    assert (statuses.count(200), statuses.count(500)) == (30, 10)
