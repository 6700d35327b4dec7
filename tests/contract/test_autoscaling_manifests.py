"""The components of autoscaling on every overlay, against the real schemas of Kubernetes, KServe and KEDA."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from servepath.serving.model import AutoscalerClass, Autoscaling, ServingPath, ServingSpec
from servepath.serving.profiles import PROFILES
from servepath.serving.render import render
from tests.contract.kubernetes_schemas import ROOT, problems

PINNED = "127.0.0.1:5000/servepath/any@sha256:" + "a" * 64
MADE = {
    ("raw", "hpa"): "HorizontalPodAutoscaler",
    ("raw", "keda"): "ScaledObject",
    ("kserve", "hpa"): "InferenceService",
    ("kserve", "keda"): "InferenceService",
}


def with_component(path: str, overlay: str, component: str, folder: Path) -> list[dict[str, Any]]:
    """Build an overlay of one's own: one of ours, and a component."""
    manifests = os.path.relpath(ROOT / "manifests" / path, folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{manifests}/overlays/{overlay}"],
        "components": [f"{manifests}/components/{component}"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return [obj for obj in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if obj]


@pytest.mark.parametrize("overlay", list(PROFILES))
@pytest.mark.parametrize(("path", "component"), list(MADE))
def test_a_component_on_an_overlay_fits_the_real_schemas(
    path: str, component: str, overlay: str, tmp_path: Path
) -> None:
    objects = with_component(path, overlay, component, tmp_path)
    assert MADE[path, component] in {obj["kind"] for obj in objects}
    assert [problem for obj in objects for problem in problems(obj)] == []


@pytest.mark.parametrize("path", list(ServingPath))
@pytest.mark.parametrize("autoscaler", [AutoscalerClass.HPA, AutoscalerClass.KEDA])
def test_what_servepath_makes_of_it_fits_them_too(path: ServingPath, autoscaler: AutoscalerClass) -> None:
    lowest = 0 if autoscaler is AutoscalerClass.KEDA else 1
    autoscaling = Autoscaling(autoscaler, lowest, 3, wake_query="sum(rate(requests_total[1m]))")
    profile = replace(PROFILES["gpu"], autoscaling=autoscaling)
    objects = anyio.run(render, ServingSpec("demo", "smol", "smol", PINNED, PINNED, profile), path)
    assert [problem for obj in objects for problem in problems(obj)] == []


@pytest.mark.parametrize(
    ("kind", "field", "value", "complaint"),
    [
        ("ScaledObject", "minReplicas", 0, "minReplicas"),
        ("ScaledObject", "maxReplicaCount", "three", "'three'"),
        ("HorizontalPodAutoscaler", "minReplicaCount", 0, "minReplicaCount"),
    ],
)
def test_a_mistake_in_it_is_found(kind: str, field: str, value: object, complaint: str, tmp_path: Path) -> None:
    component = "keda" if kind == "ScaledObject" else "hpa"
    obj = next(one for one in with_component("raw", "cpu", component, tmp_path) if one["kind"] == kind)
    obj["spec"][field] = value
    assert any(complaint in problem for problem in problems(obj))
