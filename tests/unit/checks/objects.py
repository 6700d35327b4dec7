"""Kubernetes objects as a real cluster shows them, and a loopback API server that serves them to lightkube."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from servepath.checks.cluster_checks import REQUIRED_CRDS
from tests.unit.checks.loopback import Request, Response, json_response

Json: TypeAlias = dict[str, Any]

NAMESPACE = "servepath"
MODELCAR_DIGEST = "sha256:" + "a" * 64
ENGINE_DIGEST = "sha256:" + "e" * 64
OTHER_DIGEST = "sha256:" + "0" * 64
MODELCAR = f"127.0.0.1:5000/servepath/model@{MODELCAR_DIGEST}"
ENGINE = f"127.0.0.1:5000/servepath/engine@{ENGINE_DIGEST}"
RAW_HOST = "qwen-raw-servepath.servepath.test"
KSERVE_HOST = "qwen-kserve-servepath.servepath.test"
OFFLINE = [{"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "TRANSFORMERS_OFFLINE", "value": "1"}]


def _metadata(name: str, **labels: str) -> Json:
    return {
        "name": name,
        "namespace": NAMESPACE,
        "labels": labels,
        "creationTimestamp": "2026-11-24T12:00:00Z",
        "uid": "0b7e0f0e-6a58-4c52-8a4b-1f3c2d0b9a11",
    }


def _running(name: str, image: str) -> Json:
    return {"name": name, "image": image, "imageID": image, "ready": True, "restartCount": 0}


def kserve_pod() -> Json:
    """The pod of an InferenceService after KServe v0.19.0's webhook."""
    mnt = {"name": "kserve-provision-location", "mountPath": "/mnt"}
    modelcar = {
        "name": "modelcar",
        "image": MODELCAR,
        "args": ["sh", "-c", "ln -sf /proc/$$$$/root/models /mnt/models && sleep infinity"],
        "securityContext": {"runAsUser": 1010},
        "volumeMounts": [mnt],
    }
    server = {
        "name": "kserve-container",
        "image": ENGINE,
        "args": ["/mnt/models", "--served-model-name=smollm2-135m-instruct", "--port=8080"],
        "env": [
            {"name": "STORAGE_URI", "value": f"oci://{MODELCAR}"},
            *OFFLINE,
            {"name": "MODEL_INIT_MODE", "value": "async"},
        ],
        "securityContext": {
            "runAsUser": 1010,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/scratch"}, mnt],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata("qwen-kserve-predictor-7d9c-x2x4z", app="isvc.qwen-kserve-predictor"),
        "spec": {
            "automountServiceAccountToken": False,
            "shareProcessNamespace": True,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1010,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [{"name": "modelcar-init", "image": MODELCAR, "args": ["sh", "-c", "[ -d /models ]"]}],
            "containers": [server, modelcar],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "kserve-provision-location", "emptyDir": {}}],
        },
        "status": {
            "phase": "Running",
            "initContainerStatuses": [_running("modelcar-init", MODELCAR)],
            "containerStatuses": [
                _running("kserve-container", ENGINE),
                _running("modelcar", MODELCAR),
            ],
        },
    }


def raw_pod() -> Json:
    """The pod of the raw path, as manifests/raw makes it."""
    hardened = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    digest = {"name": "MODELCAR_DIGEST", "value": MODELCAR_DIGEST}
    key = {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "qwen-raw", "key": "VLLM_API_KEY"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata("qwen-raw-5f6b-k8s9d", app="qwen-raw"),
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [
                {
                    "name": "model",
                    "image": MODELCAR,
                    "env": [digest],
                    "securityContext": copy.deepcopy(hardened),
                    "volumeMounts": [{"name": "hf", "mountPath": "/hf"}],
                }
            ],
            "containers": [
                {
                    "name": "vllm",
                    "image": ENGINE,
                    "args": ["/mnt/models", "--served-model-name=smollm2-135m-instruct", "--port=8080"],
                    "env": [digest, key, *OFFLINE],
                    "securityContext": copy.deepcopy(hardened),
                    "volumeMounts": [
                        {"name": "hf", "mountPath": "/mnt/models"},
                        {"name": "tmp", "mountPath": "/scratch"},
                    ],
                }
            ],
            "volumes": [
                {"name": "hf", "persistentVolumeClaim": {"claimName": "qwen-raw"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
        "status": {
            "phase": "Running",
            "initContainerStatuses": [_running("model", MODELCAR)],
            "containerStatuses": [_running("vllm", ENGINE)],
        },
    }


def deployment(name: str, app: str) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(name),
        "spec": {"selector": {"matchLabels": {"app": app}}, "template": {"metadata": {"labels": {"app": app}}}},
    }


def network_policy(name: str, app: str) -> Json:
    gateway = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kserve"}},
        "podSelector": {
            "matchExpressions": [
                {
                    "key": "gateway.networking.k8s.io/gateway-name",
                    "operator": "In",
                    "values": ["kserve-ingress-gateway"],
                }
            ]
        },
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(name),
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [gateway], "ports": [{"protocol": "TCP", "port": 8080}]}],
        },
    }


def route(name: str, host: str, timeout: str = "300s") -> Json:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(name),
        "spec": {"hostnames": [host], "rules": [{"timeouts": {"request": timeout}}]},
    }


def crds() -> list[Json]:
    return [
        {
            "metadata": {"name": name},
            "spec": {
                "group": name.partition(".")[2],
                "names": {"kind": "Kind", "plural": name.partition(".")[0]},
                "scope": "Namespaced",
                "versions": [{"name": version, "served": True, "storage": True}],
            },
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        }
        for name, version in REQUIRED_CRDS.items()
    ]


def inference_service() -> Json:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata("qwen-kserve"),
        "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": ENGINE}]}},
    }


@dataclass(slots=True)
class ApiServer:
    """What the API server holds; a test breaks one of these before it asks."""

    pods: dict[str, Json] = field(
        default_factory=lambda: {"qwen-raw": raw_pod(), "isvc.qwen-kserve-predictor": kserve_pod()}
    )
    deployments: dict[str, Json] = field(
        default_factory=lambda: {
            "qwen-raw": deployment("qwen-raw", "qwen-raw"),
            "qwen-kserve-predictor": deployment("qwen-kserve-predictor", "isvc.qwen-kserve-predictor"),
        }
    )
    routes: list[Json] = field(
        default_factory=lambda: [
            route("qwen-raw", RAW_HOST),
            route("qwen-kserve", KSERVE_HOST),
            route("qwen-kserve-closed", KSERVE_HOST),
        ]
    )
    policies: list[Json] = field(
        default_factory=lambda: [
            network_policy("qwen-raw", "qwen-raw"),
            network_policy("qwen-kserve", "isvc.qwen-kserve-predictor"),
        ]
    )
    crds: list[Json] = field(default_factory=crds)
    inference_services: list[Json] = field(default_factory=lambda: [inference_service()])
    phase: str = "Active"
    namespace_labels: dict[str, str] = field(
        default_factory=lambda: {
            "app.kubernetes.io/managed-by": "servepath",
            "pod-security.kubernetes.io/enforce": "baseline",
        }
    )
    exec_exit_code: int = 0
    exec_refusal: int = 0

    def answer(self, request: Request) -> Response:
        path = request.path
        if path.startswith(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/"):
            found = self.deployments.get(path.rpartition("/")[2])
            return json_response(200, found) if found else _not_found(path)
        if path == f"/api/v1/namespaces/{NAMESPACE}":
            metadata = {"name": NAMESPACE, "labels": self.namespace_labels}
            return json_response(200, {"metadata": metadata, "status": {"phase": self.phase}})
        if path.startswith("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"):
            crd = next((one for one in self.crds if one["metadata"]["name"] == path.rpartition("/")[2]), None)
            return json_response(200, crd) if crd else _not_found(path)
        if path.endswith("/exec"):
            return self._exec()
        lists = {
            f"/api/v1/namespaces/{NAMESPACE}/pods": [pod for app, pod in self.pods.items() if app in request.query],
            f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes": self.routes,
            f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies": self.policies,
            f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices": self.inference_services,
        }
        if path in lists:
            return json_response(200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": lists[path]})
        return _not_found(path)

    def _exec(self) -> Response:
        if self.exec_refusal:
            return json_response(self.exec_refusal, {"kind": "Status", "code": self.exec_refusal})
        return Response(101, frames=(b"\x03" + json.dumps(_exit_status(self.exec_exit_code)).encode(),))


def _exit_status(exit_code: int) -> Json:
    """What the kubelet sends on the error channel when the command has ended."""
    if exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(exit_code)}]
    return {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}


def _not_found(path: str) -> Response:
    message = f"{path} not found"
    return json_response(
        404, {"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": message}
    )
