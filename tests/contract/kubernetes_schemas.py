"""The real schemas of what `manifests/` holds: from Go modules that lock.yaml pins, agentgateway's from `shared`."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LOCK: dict[str, Any] = yaml.load((ROOT / "manifests/lock.yaml").read_text(), Loader=yaml.CSafeLoader)

CRD_FOLDERS = {
    # Before KServe's, which has kinds of an older inference extension.
    "gateway-api-inference-extension": "config/crd/bases",
    "kserve": "config/crd/full",
    "gateway-api": "config/crd/standard",
    "envoy-gateway": "charts/gateway-crds-helm/templates/generated",
    "keda": "config/crd/bases",
}
CORE = {
    "v1": "api__v1_openapi.json",
    "apps/v1": "apis__apps__v1_openapi.json",
    "autoscaling/v2": "apis__autoscaling__v2_openapi.json",
    "networking.k8s.io/v1": "apis__networking.k8s.io__v1_openapi.json",
    "policy/v1": "apis__policy__v1_openapi.json",
    "rbac.authorization.k8s.io/v1": "apis__rbac.authorization.k8s.io__v1_openapi.json",
}
# agentgateway is no Go module: its CRDs are a folder of `shared`, or where $SERVEPATH_CRDS says.
SHARED_CRDS = "shared/data/crds"
AGENTGATEWAY_GROUP = "agentgateway.dev"


@cache
def module_folder(name: str) -> Path:
    """Give the folder of a Go module of the lock, downloaded on first use."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed: the schemas come from Go modules")
    module = LOCK["go"][name]
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{module['module']}@{module['version']}"],
        capture_output=True,
        check=False,
        text=True,
        cwd="/",
    )
    if done.returncode != 0:
        pytest.skip(f"the module {module['module']} cannot be had: {done.stdout[:200]}")
    return Path(json.loads(done.stdout)["Dir"])


@cache
def custom_schema(api_version: str, kind: str) -> dict[str, Any] | None:
    """Give the schema of a custom resource, None where no module of the lock has it."""
    group, _, version = api_version.partition("/")
    for folder in crd_folders(group):
        for path in sorted(folder.rglob(f"{group}_{kind.lower()[:-1]}*.yaml")):
            for crd in documents(path):
                if crd["spec"]["names"]["kind"] == kind:
                    versions = {entry["name"]: entry for entry in crd["spec"]["versions"]}
                    schema: dict[str, Any] = strict(versions[version]["schema"]["openAPIV3Schema"], top=True)
                    return schema
    return None


def crd_folders(group: str) -> Iterator[Path]:
    """Give the folders to look for a group's CRDs in, each of them only when the one before it has nothing."""
    if group == AGENTGATEWAY_GROUP:
        yield shared_crds()
        return
    for name, folder in CRD_FOLDERS.items():
        yield module_folder(name) / folder


def shared_crds() -> Path:
    """Give the folder of agentgateway's CRDs."""
    found = Path(os.environ.get("SERVEPATH_CRDS") or ROOT.parent / SHARED_CRDS)
    if not found.is_dir():
        pytest.skip(f"agentgateway's CRDs are neither in $SERVEPATH_CRDS nor at ../{SHARED_CRDS}")
    return found


def documents(path: Path) -> Iterator[dict[str, Any]]:
    # A chart's template wraps the CRD in an `if`.
    lines = (line for line in path.read_text().splitlines() if not line.startswith("{{"))
    for document in yaml.load_all("\n".join(lines), Loader=yaml.CSafeLoader):
        if document and document.get("kind") == "CustomResourceDefinition" and "versions" in document["spec"]:
            yield document


@cache
def core_schema(api_version: str, kind: str) -> dict[str, Any]:
    """Give the schema of a built-in kind, its references and all."""
    path = module_folder("kubernetes") / "api/openapi-spec/v3" / CORE[api_version]
    document = json.loads(path.read_text())
    group, _, version = api_version.rpartition("/")
    for name, schema in document["components"]["schemas"].items():
        for gvk in schema.get("x-kubernetes-group-version-kind", []):
            if (gvk["group"], gvk["version"], gvk["kind"]) == (group, version, kind):
                schemas = {key: strict(value) for key, value in document["components"]["schemas"].items()}
                return {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    raise KeyError(kind)


def strict(schema: Any, *, top: bool = False) -> Any:
    """Turn an OpenAPI v3 schema into a JSON schema that refuses unknown fields, as strict field validation does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
    if made.get("x-kubernetes-int-or-string") or made.get("format") == "int-or-string":
        made = {"type": ["integer", "string"]}
    if "properties" in schema:
        made["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if top:
            made["properties"]["metadata"] = {"type": "object"}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


def problems(obj: Mapping[str, Any]) -> list[str]:
    """Say what the API server would refuse in an object; an unknown kind is a problem too."""
    key = (obj["apiVersion"], obj["kind"])
    schema = core_schema(*key) if key[0] in CORE else custom_schema(*key)
    if schema is None:
        return [f"no schema for {key}"]
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(obj)]
