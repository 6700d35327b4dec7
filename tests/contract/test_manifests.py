"""Every manifest against the real schemas, and every image and chart of the repository pinned by digest."""

import copy
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.image_references import DIGEST, unpinned, unpinned_in
from tests.contract.kubernetes_schemas import LOCK, ROOT, problems

REMOTE = "resources:\n  - https://"
OVERLAYS = sorted(
    path.parent
    for path in (ROOT / "manifests").rglob("kustomization.yaml")
    if not {"base", "components"} & set(path.parts) and REMOTE not in path.read_text()
)
SERVING = [path for path in OVERLAYS if path.relative_to(ROOT / "manifests").parts[0] in ("raw", "kserve")]

# The exceptions, by name: charts whose registry could not be asked for the digest. `servepath platform --apply` says of
# each that it is fetched by its version alone. A new one, or one that has its digest by now, fails the test.
CHARTS_WITHOUT_DIGEST = {
    "cert-manager",
    "kserve-crd",
    "kserve-resources",
    "kserve-llmisvc-crd",
    "kserve-llmisvc-resources",
    "kserve-runtime-configs",
    "agentgateway-crds",
    "agentgateway",
}
SOME_DIGEST = "sha256:" + "0" * 64


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "manifests"))


@cache
def built(overlay: Path) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document]


def engine_pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    for obj in objects:
        if obj["kind"] == "Deployment":
            pod: dict[str, Any] = obj["spec"]["template"]["spec"]
            return pod
        if obj["kind"] == "InferenceService":
            predictor: dict[str, Any] = obj["spec"]["predictor"]
            return predictor
    raise AssertionError("no engine")


@pytest.mark.parametrize("overlay", OVERLAYS, ids=name)
def test_manifests_fit_the_real_schemas(overlay: Path) -> None:
    objects = built(overlay)
    assert objects
    assert {f"{obj['kind']}/{obj['metadata']['name']}": problems(obj) for obj in objects} == {
        f"{obj['kind']}/{obj['metadata']['name']}": [] for obj in objects
    }


@pytest.mark.parametrize(
    ("overlay", "kind", "where", "value", "complaint"),
    [
        ("kserve/overlays/cpu", "InferenceService", ("spec", "predictor", "timeoutSeconds"), 300, "timeoutSeconds"),
        ("kserve/overlays/cpu", "InferenceService", ("spec", "predictor", "timeout"), "300s", "'300s'"),
        ("raw/overlays/cpu", "HTTPRoute", ("spec", "hostnames"), ["UPPER.test"], "UPPER.test"),
        ("raw/overlays/cpu", "Deployment", ("spec", "replicas"), "one", "'one'"),
        ("raw/overlays/cpu", "Service", ("spec", "port"), 80, "'port'"),
        ("llm-d/overlays/gpu", "LLMInferenceService", ("spec", "scheduler"), {}, "'scheduler'"),
        ("llm-d/overlays/gpu", "LLMInferenceService", ("spec", "replicas"), "two", "'two'"),
        ("inference/overlays/one", "InferencePool", ("spec", "targetPort"), 8080, "'targetPort'"),
        ("inference/overlays/one", "InferencePool", ("spec", "appProtocol"), "grpc", "'grpc'"),
        ("inference/overlays/one", "InferenceObjective", ("spec", "priority"), "high", "'high'"),
        ("inference/overlays/one", "Role", ("rules",), "all", "'all'"),
        ("platform/agentgateway", "AgentgatewayPolicy", ("spec", "traffic", "phase"), "Before", "'Before'"),
        ("platform/agentgateway", "AgentgatewayPolicy", ("spec", "route"), {}, "'route'"),
        ("platform/agentgateway", "AgentgatewayParameters", ("spec", "replicas"), 2, "'replicas'"),
    ],
)
def test_a_planted_mistake_is_found(
    overlay: str, kind: str, where: tuple[str, ...], value: object, complaint: str
) -> None:
    obj = copy.deepcopy(next(obj for obj in built(ROOT / "manifests" / overlay) if obj["kind"] == kind))
    node = obj
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    assert any(complaint in problem for problem in problems(obj))


@pytest.mark.parametrize("overlay", SERVING, ids=name)
def test_images_are_those_of_the_lock(overlay: Path) -> None:
    pod = engine_pod(built(overlay))
    engine = "vllm-gpu" if overlay.name in ("gpu", "gke") else "vllm-cpu"
    assert pod["containers"][0]["image"] == locked(engine)
    model = locked("prebuilt-modelcar")
    environment = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    if "initContainers" in pod:
        assert pod["initContainers"][0]["image"] == model
        assert environment["MODELCAR_DIGEST"] == model.partition("@")[2]
        init = {variable["name"]: variable["value"] for variable in pod["initContainers"][0]["env"]}
        assert init["MODELCAR_DIGEST"] == model.partition("@")[2]
    else:
        assert environment["STORAGE_URI"] == f"oci://{model}"


@pytest.mark.parametrize("device", ["cpu", "cpu-small", "gpu", "gke"])
def test_both_paths_run_the_same_engine(device: str) -> None:
    raw, kserve = (
        engine_pod(built(ROOT / "manifests" / path / "overlays" / device))["containers"][0]
        for path in ("raw", "kserve")
    )
    for field in ("image", "args", "resources"):
        assert raw[field] == kserve[field]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_llm_d_serves_the_same_model_on_the_same_engine(device: str) -> None:
    service = next(
        obj for obj in built(ROOT / "manifests/llm-d/overlays" / device) if obj["kind"] == "LLMInferenceService"
    )
    [container] = service["spec"]["template"]["containers"]
    raw = engine_pod(built(ROOT / "manifests/raw/overlays" / device))["containers"][0]
    assert container["image"] == raw["image"]
    assert container["resources"] == raw["resources"]
    tuned = [argument for argument in raw["args"] if not argument.startswith(("--port", "--served-model-name"))]
    assert [argument for argument in tuned if argument not in container["args"]] == []
    assert service["spec"]["model"]["uri"] == f"oci://{locked('prebuilt-modelcar')}"


def locked(key: str) -> str:
    image: str = LOCK["images"][key]["image"]
    return image


def without_digest(lock: dict[str, Any]) -> set[str]:
    """Give the entries of a lock that no digest pins."""
    images = {f"images.{key}" for key, entry in lock["images"].items() if not DIGEST.search(entry["image"])}
    charts = {f"charts.{key}" for key, entry in lock["charts"].items() if not DIGEST.search(f"@{entry['digest']}")}
    return images | charts


def declared() -> set[str]:
    return {f"charts.{key}" for key in CHARTS_WITHOUT_DIGEST}


def test_the_lock_pins_all_but_the_declared_charts() -> None:
    assert without_digest(LOCK) == declared()


@pytest.mark.parametrize(
    ("section", "entry"),
    [
        ("images", {"image": "docker.io/library/nginx:1.27.0"}),
        ("images", {"image": "docker.io/library/nginx@sha256:abc"}),
        ("charts", {"chart": "oci://ghcr.io/someone/chart", "version": "v1.0.0", "digest": "unknown"}),
    ],
)
def test_an_entry_planted_in_the_lock_is_found(section: str, entry: dict[str, str]) -> None:
    planted = copy.deepcopy(LOCK)
    planted[section]["planted"] = entry
    assert without_digest(planted) - declared() == {f"{section}.planted"}


def test_a_declared_chart_that_has_its_digest_is_no_exception_any_more() -> None:
    pinned = copy.deepcopy(LOCK)
    pinned["charts"]["kserve-crd"]["digest"] = SOME_DIGEST
    assert without_digest(pinned) != declared()


@pytest.mark.parametrize("key", sorted(LOCK["charts"]))
def test_a_chart_has_an_exact_version(key: str) -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+", LOCK["charts"][key]["version"])


def test_every_image_and_chart_in_the_repository_is_pinned() -> None:
    # The lock's charts carry their digest in a field of its own: the tests above look at it.
    charts = {("manifests/lock.yaml", entry["chart"]) for entry in LOCK["charts"].values()}
    assert set(unpinned_in(ROOT)) == charts


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("deploy.yaml", "containers:\n  - name: web\n    image: nginx:1.27\n"),
        (".github/workflows/ci.yml", "    container: node:20\n"),
        (".ci/run", "docker run --rm alpine:3.20.1 true\n"),
        ("src/build.py", 'BASE = "debian:12.5"\n'),
        ("docs/use.md", "`helm install x oci://ghcr.io/someone/chart --version 1.0.0`\n"),
    ],
)
def test_a_file_planted_in_a_tree_is_found(tmp_path: Path, file: str, text: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(text)
    assert [path for path, _ in unpinned_in(tmp_path)] == [file]


@pytest.mark.parametrize(
    "line",
    [
        "image: nginx:1.27",
        "image: nginx",
        "image: nginx:1.27 # from https://hub.docker.com",
        "  - image: 'vllm/vllm-openai:v0.23.0'",
        "{name: web, image: nginx:1}",
        "    newTag: v2",
        '"image": "registry.example/x@sha256:abc"',
        "value: oci://ghcr.io/someone/model:latest",
        "chart: oci://ghcr.io/someone/chart",
        "uses: docker://docker.io/library/alpine:3",
        "FROM alpine:3.20 AS build",
        "COPY --from=ghcr.io/astral-sh/uv:latest /uv /bin/",
    ],
)
def test_an_unpinned_reference_in_data_is_found(line: str) -> None:
    assert [*unpinned(line, code=False)]


@pytest.mark.parametrize(
    "line",
    [
        'IMAGE = "ghcr.io/kserve/charts/kserve-crd:v0.19.0"',
        'BASE = "busybox:1.38.0"',
        'run(image="alpine")',
        'dag.container().from_("alpine:3")',
        '{"image": "alpine:3"}',
    ],
)
def test_an_unpinned_reference_in_a_program_is_found(line: str) -> None:
    assert [*unpinned(line, code=True)]


@pytest.mark.parametrize("code", [True, False])
@pytest.mark.parametrize(
    "line",
    [
        f"image: vllm/vllm-openai:v0.23.0@{SOME_DIGEST}",
        f"value: oci://ghcr.io/someone/model@{SOME_DIGEST}",
        f'dag.container().from_("alpine:3@{SOME_DIGEST}")',
        "# image: nginx:1.27 would not do",
        "imagePullPolicy: IfNotPresent",
        "url: https://ghcr.io/v2/x:1.2.3",
        'line = f"{took_s:6.2f} s from 127.0.0.1:5000"',
    ],
)
def test_pinned_references_and_prose_are_let_through(line: str, *, code: bool) -> None:
    assert [*unpinned(line, code=code)] == []
