"""A canary between two digests of one real model on the real engine: the numbers of docs/canary.md.

It takes minutes and 8 GB, so it runs where `SERVEPATH_CANARY_REPORT` names the directory for its report.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ci.node import images
from ci.node.engine_image import build_engine_image
from ci.node.models import SMOLLM2_NAME, prepare_smollm2
from servepath.bench.model import BenchPlan
from servepath.canary.model import CanaryPlan, ClientPlan, Outcome
from servepath.canary.run import run_canary
from servepath.canary.slots import delete_canary
from servepath.cli.run_info import run_info
from servepath.cluster.facts import node_facts
from servepath.modelcar.build import build_and_push
from servepath.modelcar.copy import push_layout
from servepath.modelcar.plan import BuildOptions
from servepath.modelcar.source.directory import open_source
from servepath.report.model import Report
from servepath.report.write import write_report
from servepath.serving.deploy import delete, deploy_kserve
from servepath.serving.model import ServingSpec
from servepath.serving.profiles import CPU_SMALL

if TYPE_CHECKING:
    from ci.node.layout import Layout
    from ci.node.registry import Registry
    from servepath.cluster.model import Cluster

REPORT = os.environ.get("SERVEPATH_CANARY_REPORT", "")
NAMESPACE, NAME = "canary-vllm", "smol"
COMMAND = "python -m ci.node test -- tests/cluster/pods/test_canary_vllm.py"
SHARD_BYTES = 64_000_000
PLAN = CanaryPlan(
    steps_percent=(5, 25, 50, 100),
    hold_s=25.0,
    max_slowdown_percent=50.0,
    bench=BenchPlan(requests_per_block=1, prompt_tokens=32, output_tokens=8, warmup_requests=1),
    client=ClientPlan(rate_per_s=0.5, output_tokens=8),
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.anyio,
    pytest.mark.skipif(not REPORT, reason="SERVEPATH_CANARY_REPORT names no directory"),
]


async def test_a_real_model_is_led_to_another_digest_of_itself(
    layout: Layout, image_registry: Registry, serving_cluster: Cluster
) -> None:
    registry = image_registry.address
    engine = await push_layout((await build_engine_image(layout.cache)).layout, registry, "servepath/engine")
    base = await images.push(images.busybox(), registry, "servepath/busybox")
    model = open_source(await prepare_smollm2(layout.cache))
    whole = await build_and_push(model, base, registry, "servepath/smollm2")
    sharded = await build_and_push(
        model, base, registry, "servepath/smollm2", build=BuildOptions(reshard_bytes=SHARD_BYTES)
    )
    stable = ServingSpec(NAMESPACE, NAME, SMOLLM2_NAME, whole.reference, engine, CPU_SMALL)
    canary = ServingSpec(NAMESPACE, NAME, SMOLLM2_NAME, sharded.reference, engine, CPU_SMALL)
    said: list[str] = []
    try:
        endpoint = await deploy_kserve(serving_cluster, stable, "key-of-the-canary")
        result = await run_canary(serving_cluster, canary, PLAN, progress=said.append)
        info = replace(run_info(COMMAND), node=await node_facts(serving_cluster))
        write_report(Report(info, cluster=serving_cluster, deployments=(endpoint,), canary=result), Path(REPORT))
    finally:
        await delete_canary(serving_cluster, NAMESPACE, NAME)
        await delete(serving_cluster, NAMESPACE, NAME)
    assert (result.outcome, result.cause) == (Outcome.PROMOTED, ""), said
    assert [request.error for request in result.requests if request.error] == []
