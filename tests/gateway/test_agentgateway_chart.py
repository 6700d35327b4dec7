"""Our values on agentgateway's own chart: what is tested here, and what the platform looks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml

from ci.node import programs
from ci.node.kubernetes import HELM
from servepath.manifests import manifests_directory
from servepath.platform.lock import read
from servepath.platform.parts import parts
from tests.contract.kubernetes_schemas import documents, shared_crds
from tests.gateway.agentgateway import CHART_SETTINGS

if TYPE_CHECKING:
    from ci.node.layout import Layout
    from tests.gateway.agentgateway import Programs

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

Json = dict[str, Any]

VALUES = manifests_directory() / "platform" / "agentgateway" / "values.yaml"
NAMESPACE = "agentgateway-system"


async def render(layout: Layout, found: Programs, *arguments: str) -> list[Json]:
    helm = programs.target(HELM, layout.cache) / HELM.name
    chart = str(found.charts / "agentgateway")
    command = [str(helm), "template", "agentgateway", chart, f"--namespace={NAMESPACE}", *arguments]
    rendered = yaml.safe_load_all((await anyio.run_process(command)).stdout)
    return [obj for obj in rendered if obj]


def settings_of(objects: list[Json]) -> dict[str, str]:
    (deployment,) = (obj for obj in objects if obj["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container["env"]}


async def test_the_values_switch_on_what_is_tested_here(layout: Layout, agentgateway_programs: Programs) -> None:
    ours = settings_of(await render(layout, agentgateway_programs, f"--values={VALUES}"))
    assert ours.items() >= CHART_SETTINGS.items()
    # Without them it is off, and a route to an InferencePool has no backend.
    assert "AGW_ENABLE_INFER_EXT" not in settings_of(await render(layout, agentgateway_programs))


async def test_every_value_is_one_that_the_chart_knows(agentgateway_programs: Programs) -> None:
    known = yaml.safe_load((agentgateway_programs.charts / "agentgateway" / "values.yaml").read_text())

    def unknown(given: Json, of: Json) -> list[str]:
        return [
            key
            for key, value in given.items()
            if key not in of or (isinstance(value, dict) and of[key] and unknown(value, of[key]))
        ]

    assert unknown(yaml.safe_load(VALUES.read_text()), known) == []
    assert unknown({"inferenceExtension": {"enable": True}}, known) == ["inferenceExtension"]


async def test_the_platform_finds_what_the_chart_makes(layout: Layout, agentgateway_programs: Programs) -> None:
    objects = await render(layout, agentgateway_programs, f"--values={VALUES}")
    made = {f"{obj['kind']}/{obj['metadata']['name']}".lower() for obj in objects}
    lock = read(manifests_directory() / "lock.yaml")
    (part,) = (one for one in parts(lock, manifests_directory()) if one.name == "agentgateway")
    assert part.namespace == NAMESPACE
    assert set(part.shown_by) <= made


def test_the_crds_are_those_that_manifests_are_held_to(agentgateway_programs: Programs) -> None:
    chart = {
        path.name: list(documents(path))
        for path in (agentgateway_programs.charts / "agentgateway-crds" / "templates").glob("*.yaml")
    }
    shared = {path.name.replace(".v1.2.1", ""): list(documents(path)) for path in shared_crds().glob("*.yaml")}
    assert shared == chart
