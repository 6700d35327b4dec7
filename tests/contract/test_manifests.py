"""Every manifest against the real schemas, and every image and chart of the repository pinned by digest."""

import copy
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.kubernetes_schemas import LOCK, ROOT, problems

REMOTE = "resources:\n  - https://"
OVERLAYS = sorted(
    path.parent
    for path in (ROOT / "manifests").rglob("kustomization.yaml")
    if "base" not in path.parts and REMOTE not in path.read_text()
)
SERVING = [path for path in OVERLAYS if path.relative_to(ROOT / "manifests").parts[0] in ("raw", "kserve")]

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
# host.tld/… or docker.io's short form with a tag: what a registry would be asked for.
REFERENCE = re.compile(
    r"""(?<![\w./:-])(?P<reference>
        (?:(?:docker|ghcr|quay|gcr|registry\.k8s|cr\.agentgateway)\.(?:io|dev)/[\w./-]+(?::[\w][\w.-]*)?
          |(?:vllm|kserve|library|rancher|busybox|istio|envoyproxy)(?:/[\w.-]+)?:v?\d[\w.-]*)
        (?:@sha256:[0-9a-f]+)?)""",
    re.VERBOSE,
)
# `image:` of YAML and JSON, with or without quotes; of Python only what is assigned a literal.
DATA_FIELD = re.compile(r"""^\s*(?:-\s*)?["']?image["']?\s*:\s*["']?(?P<reference>[\w.-][\w./:@-]+)["']?\s*,?$""")
CODE_FIELD = re.compile(r"""\bimage["']?\s*[:=]\s*["'](?P<reference>[\w.-][\w./:@-]+)["']""", re.IGNORECASE)
SCANNED = (".yaml", ".yml", ".py", ".json", ".toml")
# Tests plant unpinned references on purpose; package locks and schemas name no image.
NOT_SCANNED = ("tests", ".venv", ".git", "node_modules", "report")


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
    engine = "vllm-gpu" if overlay.name == "gpu" else "vllm-cpu"
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


@pytest.mark.parametrize("device", ["cpu", "cpu-small", "gpu"])
def test_both_paths_run_the_same_engine(device: str) -> None:
    raw, kserve = (
        engine_pod(built(ROOT / "manifests" / path / "overlays" / device))["containers"][0]
        for path in ("raw", "kserve")
    )
    for field in ("image", "args", "resources"):
        assert raw[field] == kserve[field]


def locked(key: str) -> str:
    image: str = LOCK["images"][key]["image"]
    return image


def declared_unknown() -> set[str]:
    """Give the references that the lock itself declares unpinned, with the command that pins them."""
    entries = [*LOCK["images"].values(), *LOCK["charts"].values()]
    return {
        entry.get("image") or entry["chart"].removeprefix("oci://") + ":" + entry["version"]
        for entry in entries
        if entry.get("digest") == "unknown" and entry.get("fill")
    }


def unpinned(text: str, field: re.Pattern[str]) -> Iterator[str]:
    """Give the image references of a text that carry no digest; a line of prose, a comment or a URL is none."""
    for line in text.splitlines():
        code = line.split("#", 1)[0] if line.lstrip().startswith(("#", "- #")) else line
        if "://" in code and "oci://" not in code:
            continue
        code = code.replace("oci://", "")
        found = [match["reference"] for match in REFERENCE.finditer(code) if ":" in match["reference"]]
        found += [match["reference"] for match in field.finditer(code)]
        yield from (reference for reference in dict.fromkeys(found) if not DIGEST.search(reference))


def can_be_pulled(reference: str) -> bool:
    """Tell whether a reference's host can exist: `.invalid` and `.test` are reserved (RFC 6761)."""
    return not reference.partition("/")[0].endswith((".invalid", ".test"))


def scanned_files() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.suffix in SCANNED and not set(parts) & set(NOT_SCANNED) and path.is_file():
            yield path


def test_every_image_and_chart_in_the_repository_is_pinned() -> None:
    allowed = declared_unknown()
    found = [
        f"{path.relative_to(ROOT)}: {reference}"
        for path in scanned_files()
        for reference in unpinned(path.read_text(errors="replace"), CODE_FIELD if path.suffix == ".py" else DATA_FIELD)
        if can_be_pulled(reference) and reference not in allowed
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "image: nginx:1.27",
        "  - image: 'vllm/vllm-openai:v0.23.0'",
        'IMAGE = "ghcr.io/kserve/charts/kserve-crd:v0.19.0"',
        '"image": "registry.test/x@sha256:abc"',
        "value: oci://ghcr.io/someone/model:latest",
        'BASE = "busybox:1.38.0"',
        'run(image="alpine")',
    ],
)
def test_a_planted_unpinned_reference_is_found(line: str) -> None:
    assert [*unpinned(line, DATA_FIELD), *unpinned(line, CODE_FIELD)]


@pytest.mark.parametrize(
    "line",
    [
        f"image: vllm/vllm-openai:v0.23.0@sha256:{'0' * 64}",
        f"value: oci://ghcr.io/someone/model@sha256:{'0' * 64}",
        "# image: nginx:1.27 would not do",
        "imagePullPolicy: IfNotPresent",
        "url: https://ghcr.io/v2/",
    ],
)
def test_pinned_references_and_prose_are_let_through(line: str) -> None:
    assert [*unpinned(line, DATA_FIELD), *unpinned(line, CODE_FIELD)] == []


@pytest.mark.parametrize("entry", [*LOCK["images"].values(), *LOCK["charts"].values()], ids=str)
def test_lock_entry_is_pinned_or_says_how_to_pin_it(entry: dict[str, str]) -> None:
    reference = entry.get("image") or entry["chart"]
    if entry.get("digest") == "unknown":
        assert entry["fill"].endswith(
            reference.removeprefix("oci://") + (f":{entry['version']}" if "chart" in entry else "")
        )
    else:
        assert DIGEST.search(reference) or re.fullmatch(r"sha256:[0-9a-f]{64}", entry.get("digest", ""))
