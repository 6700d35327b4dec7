"""What the embedded node makes of KServe's release manifest and of the Gateway's manifests."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ci.node import envoy_gateway, kserve
from servepath.errors import ClusterError

VALUES = Path(__file__).resolve().parents[3] / "manifests" / "platform" / "kserve" / "values.yaml"


def config_map(**data: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
        "data": {key: json.dumps(value) for key, value in data.items()},
    }


def webhook(service: str) -> dict[str, Any]:
    reference = {"service": {"name": service, "namespace": "kserve", "path": "/mutate-pods"}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": service, "annotations": {"cert-manager.io/inject-ca-from": "kserve/serving-cert"}},
        "webhooks": [{"name": "one", "clientConfig": reference, "failurePolicy": "Fail"}],
    }


def test_settings_are_those_of_the_chart_and_the_rest_is_kept() -> None:
    original = config_map(
        deploy={"defaultDeploymentMode": "Serverless"},
        ingress={"enableGatewayApi": False, "urlScheme": "http"},
        storageInitializer={"uidModelcar": 1010},
    )
    data = kserve.configured([original], kserve.read_settings(VALUES))["data"]
    assert json.loads(data["deploy"]) == {"defaultDeploymentMode": "Standard"}
    assert json.loads(data["ingress"]) == {
        "enableGatewayApi": True,
        "kserveIngressGateway": "kserve/kserve-ingress-gateway",
        "disableIstioVirtualHost": True,
        "ingressDomain": "servepath.test",
        "urlScheme": "http",
    }
    assert json.loads(data["storageInitializer"]) == {"uidModelcar": 1010, "enableModelcar": True}


def test_a_manifest_without_settings_is_refused() -> None:
    with pytest.raises(ClusterError, match="no ConfigMap inferenceservice-config"):
        kserve.configured([webhook("other")], kserve.read_settings(VALUES))


def test_one_controllers_webhooks_are_taken_and_reached_on_the_loopback() -> None:
    hooks = kserve.webhooks(
        [webhook("kserve-webhook-server-service"), webhook("llmisvc-webhook-server-service")],
        b"CA",
        "kserve-webhook-server-service",
        9443,
    )
    assert len(hooks) == 1
    assert hooks[0]["webhooks"][0]["clientConfig"] == {
        "url": "https://127.0.0.1:9443/mutate-pods",
        "caBundle": base64.b64encode(b"CA").decode(),
    }
    assert hooks[0]["webhooks"][0]["failurePolicy"] == "Fail"
    assert "annotations" not in hooks[0]["metadata"]


def test_envoy_is_given_its_image_and_its_controllers_address() -> None:
    deployment = {"replicas": 1, "container": {"resources": {"limits": {"memory": "1Gi"}}}}
    proxy = {
        "kind": "EnvoyProxy",
        "spec": {"concurrency": 1, "provider": {"type": "Kubernetes", "kubernetes": {"envoyDeployment": deployment}}},
    }
    gateway = {"kind": "Gateway", "spec": {}}
    changed, untouched = envoy_gateway.for_this_node([proxy, gateway], "host/envoy@sha256:1")
    assert untouched is gateway
    assert changed["spec"]["concurrency"] == 1
    made = changed["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    assert made["container"]["image"] == "host/envoy@sha256:1"
    assert made["container"]["resources"] == {"limits": {"memory": "1Gi"}}
    (mount,) = made["container"]["volumeMounts"]
    assert (mount["mountPath"], mount["name"]) == ("/etc/hosts", made["pod"]["volumes"][0]["name"])
    assert deployment == {"replicas": 1, "container": {"resources": {"limits": {"memory": "1Gi"}}}}
