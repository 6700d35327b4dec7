"""The GKE overlays as `servepath deploy` renders them and as kubectl alone does, with every option and with none."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml

from servepath.errors import UsageError
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import GKE, profile_named
from servepath.serving.render import render
from tests.contract.kubernetes_schemas import ROOT, problems

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = ("gke-accelerator", "gke-image-streaming", "gke-secondary-boot-disk", "gke-spot")
IMAGE = "registry.example/x@sha256:" + "a" * 64
SPOT = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
RESTRICTED = "cloud.google.com.node-restriction.kubernetes.io"
PATHS = pytest.mark.parametrize("path", list(ServingPath))


@cache
def rendered(path: ServingPath, *components: str) -> tuple[dict[str, Any], ...]:
    spec = ServingSpec("models", "smol", "smol", IMAGE, IMAGE, profile_named("gke", components))
    return anyio.run(partial(render, spec, path))


def engine(path: ServingPath, *components: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod spec and its engine's container."""
    kind = "Deployment" if path is ServingPath.RAW else "InferenceService"
    found = next(obj for obj in rendered(path, *components) if obj["kind"] == kind)["spec"]
    pod = found["template"]["spec"] if path is ServingPath.RAW else found["predictor"]
    return pod, pod["containers"][0]


def kinds(path: ServingPath, *components: str) -> dict[str, str]:
    return {obj["kind"]: obj["metadata"]["name"] for obj in rendered(path, *components)}


def volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in pod["volumes"] if one["name"] == name)
    return found


@PATHS
@pytest.mark.parametrize("components", [(), *[(one,) for one in OPTIONS], OPTIONS, OPTIONS[::-1]])
def test_every_choice_fits_the_real_schemas(path: ServingPath, components: tuple[str, ...]) -> None:
    for obj in rendered(path, *components):
        assert problems(obj) == []
        assert obj["metadata"]["name"].startswith("smol-") or obj["kind"] == "Namespace"
        assert obj["metadata"].get("namespace", "models") == "models"


@PATHS
def test_the_engine_on_gke(path: ServingPath) -> None:
    pod, container = engine(path)
    assert container["resources"]["requests"]["nvidia.com/gpu"] == container["resources"]["limits"]["nvidia.com/gpu"]
    assert pod["tolerations"] == [GPU]
    assert "nodeSelector" not in pod, "no type of GPU is pinned"
    assert volume(pod, "shm")["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    environment = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    assert environment["NCCL_CUMEM_ENABLE"] == "0"
    assert "--gpu-memory-utilization=0.6" in container["args"]
    probe = container["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 1200
    assert GKE.startup_timeout_s >= GKE.patience_s + 1200
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    cache_mount = mounts["/" + environment["VLLM_CACHE_ROOT"].split("/")[1]]
    assert not cache_mount.get("readOnly")
    claim = volume(pod, cache_mount["name"])["persistentVolumeClaim"]["claimName"]
    assert claim == kinds(path)["PersistentVolumeClaim"] == f"smol-{path}"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"], "the engine may write there"


def test_one_slot_is_emptied_before_it_is_filled() -> None:
    deployment = next(obj for obj in rendered(ServingPath.RAW) if obj["kind"] == "Deployment")["spec"]
    assert deployment["strategy"] == {"type": "Recreate"}
    assert deployment["progressDeadlineSeconds"] >= GKE.patience_s + 1200
    service = next(obj for obj in rendered(ServingPath.KSERVE) if obj["kind"] == "InferenceService")["spec"]
    assert service["predictor"]["deploymentStrategy"] == {"type": "Recreate"}


@PATHS
def test_spot(path: ServingPath) -> None:
    pod, container = engine(path, "gke-spot")
    assert pod["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
    assert pod["tolerations"] == [GPU, SPOT]
    # 30 s notice, of which GKE leaves pods 25: preStop, the engine's own time, and some to exit.
    stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    shutdown_s = int(next(one for one in container["args"] if one.startswith("--shutdown-timeout=")).partition("=")[2])
    assert stop_s + shutdown_s < pod["terminationGracePeriodSeconds"] <= 25
    assert sum(one.startswith("--shutdown-timeout") for one in container["args"]) == 1
    # A disk of one zone would tie the next pod to a zone that may have no machine.
    assert not [one for one in pod["volumes"] if "persistentVolumeClaim" in one]
    assert "PersistentVolumeClaim" not in kinds(path, "gke-spot")
    budget = next(obj for obj in rendered(path, "gke-spot") if obj["kind"] == "PodDisruptionBudget")
    assert budget["metadata"]["name"] == f"smol-{path}"
    assert budget["spec"]["minAvailable"] == 1
    kind = "Deployment" if path is ServingPath.RAW else "InferenceService"
    owner = next(obj for obj in rendered(path, "gke-spot") if obj["kind"] == kind)
    labels = owner["spec"]["template"]["metadata"]["labels"] if path is ServingPath.RAW else owner["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


@PATHS
def test_options_add_up_in_any_order(path: ServingPath) -> None:
    pod, _ = engine(path, *OPTIONS)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "cloud.google.com/gke-image-streaming": "true",
        f"{RESTRICTED}/gke-secondary-boot-disk-DISK_IMAGE": "CONTAINER_IMAGE_CACHE.PROJECT",
        "cloud.google.com/gke-spot": "true",
    }
    assert engine(path, *OPTIONS[::-1])[0]["nodeSelector"] == pod["nodeSelector"]


@PATHS
def test_an_option_that_is_not_there_is_refused(path: ServingPath) -> None:
    with pytest.raises(UsageError, match="no component is named 'gke-tpu'"):
        rendered(path, "gke-tpu")


@PATHS
def test_kubectl_alone_takes_the_options(path: ServingPath, tmp_path: Path) -> None:
    tree = tmp_path / path
    shutil.copytree(ROOT / "manifests" / path, tree)
    mine = tree / "overlays" / "mine"
    mine.mkdir()
    components = [f"../../components/{one}" for one in OPTIONS]
    document = {"kind": "Kustomization", "resources": ["../gke"], "components": components}
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(["kubectl", "kustomize", str(mine)], capture_output=True, check=True, text=True)
    objects = [one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one]
    assert {problem for obj in objects for problem in problems(obj)} == set()
    budget = next(obj for obj in objects if obj["kind"] == "PodDisruptionBudget")
    assert budget["metadata"]["namespace"] == "servepath"
