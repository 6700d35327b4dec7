"""The platform's values of the llm-d path on KServe's real charts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml

from ci.node import llmisvc, programs
from ci.node.kubernetes import HELM
from servepath.platform.llmd import PRESETS

if TYPE_CHECKING:
    from ci.node.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

PLATFORM = Path(__file__).resolve().parents[2] / "manifests" / "platform"
VALUES = {
    "kserve-llmisvc-resources": PLATFORM / "kserve-llmisvc" / "values.yaml",
    "kserve-runtime-configs": PLATFORM / "kserve-runtime-configs" / "values.yaml",
}


async def rendered(layout: Layout, chart: str, *values: str) -> list[dict[str, Any]]:
    folder = (await llmisvc.keep_charts(layout.cache))[chart]
    helm = str(programs.target(HELM, layout.cache) / HELM.name)
    command = [helm, "template", chart, str(folder), "--namespace=kserve", *values]
    return [obj for obj in yaml.safe_load_all((await anyio.run_process(command)).stdout) if obj]


def named(objects: list[dict[str, Any]]) -> set[str]:
    return {f"{obj['kind']}/{obj['metadata']['name']}" for obj in objects}


async def test_the_controller_comes_without_what_other_releases_own(layout: Layout) -> None:
    chart = "kserve-llmisvc-resources"
    bare, ours = named(await rendered(layout, chart)), named(await rendered(layout, chart, f"--values={VALUES[chart]}"))
    assert "Deployment/llmisvc-controller-manager" in ours
    assert "Certificate/llmisvc-serving-cert" in ours
    left_out = bare - ours
    assert {
        "ConfigMap/inferenceservice-config",
        "Issuer/selfsigned-issuer",
        "ClusterStorageContainer/default",
    } <= left_out
    assert {one for one in left_out if one.startswith("CustomResourceDefinition/inferencepools.")}
    assert not {one for one in ours if one.startswith("CustomResourceDefinition/")}


async def test_the_presets_come_without_runtimes_that_we_do_not_use(layout: Layout) -> None:
    chart = "kserve-runtime-configs"
    ours = await rendered(layout, chart, f"--values={VALUES[chart]}")
    assert {obj["kind"] for obj in ours} == {"LLMInferenceServiceConfig"}
    assert set(PRESETS) <= {obj["metadata"]["name"] for obj in ours}
    # Without our values the chart has none of them.
    assert await rendered(layout, chart) == []
