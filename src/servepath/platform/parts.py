"""What the platform is made of, in the order in which it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.platform.lock import ChartPin, Lock

_GATEWAY_API = "gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to install: manifests or a chart, never both.

    Attributes:
        name: its name.
        why: what it is for, in words.
        manifests: a kustomize directory that is applied server-side, None for a chart.
        chart: the chart, None for manifests.
        namespace: the chart's namespace.
        values: the chart's values, None for its own.
        shown_by: objects (`KIND/NAME`) that show that somebody installed the part, however; looked for in
            `namespace`. Manifests without them are applied each time.
    """

    name: str
    why: str
    manifests: Path | None = None
    chart: ChartPin | None = None
    namespace: str = ""
    values: Path | None = None
    shown_by: tuple[str, ...] = ()


def parts(lock: Lock, manifests: Path, gateway_class: str = "agentgateway") -> tuple[Part, ...]:
    """Give the platform's parts.

    Args:
        lock: the pins.
        manifests: the `manifests` directory.
        gateway_class: whose Gateway: `agentgateway`, which is installed too, or another directory of
            `manifests/platform`, such as `envoy-gateway`, whose controller must be there already.

    Raises:
        UsageError: there are no manifests for this class.
    """
    platform = manifests / "platform"
    gateway = platform / gateway_class
    if not (gateway / "kustomization.yaml").is_file():
        classes = sorted(path.parent.name for path in platform.glob("*/gatewayclass.yaml"))
        raise UsageError(
            f"no Gateway of the class {gateway_class!r}", where=str(platform), expected=" or ".join(classes)
        )
    own = _agentgateway(lock, platform) if gateway_class == "agentgateway" else ()
    return (
        Part("namespaces", "where the parts live", manifests=platform / "namespaces"),
        Part(
            "gateway-api",
            "the kinds that routes are made of",
            manifests=platform / "gateway-api",
            shown_by=(
                crd("gatewayclasses", _GATEWAY_API),
                crd("gateways", _GATEWAY_API),
                crd("httproutes", _GATEWAY_API),
            ),
        ),
        Part(
            "cert-manager",
            "certificates of KServe's webhooks",
            chart=lock.chart("cert-manager"),
            namespace="cert-manager",
            values=platform / "cert-manager" / "values.yaml",
            shown_by=(crd("certificates", "cert-manager.io"),),
        ),
        *own,
        Part(
            "kserve-crd",
            "KServe's kinds",
            chart=lock.chart("kserve-crd"),
            namespace="kserve",
            shown_by=(crd("inferenceservices", "serving.kserve.io"),),
        ),
        Part(
            "kserve-resources",
            "KServe's controller and webhooks",
            chart=lock.chart("kserve-resources"),
            namespace="kserve",
            values=platform / "kserve" / "values.yaml",
            shown_by=("configmap/inferenceservice-config",),
        ),
        Part("gateway", "the Gateway that both serving paths attach to", manifests=gateway),
    )


def inference_extension(platform: Path) -> Part:
    """Give the part of the InferencePools: agentgateway looks for them, and the llm-d path makes one."""
    return Part(
        "gateway-api-inference-extension",
        "InferencePools, which agentgateway looks for",
        manifests=platform / "inference-extension",
        shown_by=(crd("inferencepools", "inference.networking.k8s.io"),),
    )


def _agentgateway(lock: Lock, platform: Path) -> tuple[Part, ...]:
    return (
        inference_extension(platform),
        Part(
            "agentgateway-crds",
            "agentgateway's kinds",
            chart=lock.chart("agentgateway-crds"),
            namespace="agentgateway-system",
            shown_by=(crd("agentgatewaypolicies", "agentgateway.dev"),),
        ),
        Part(
            "agentgateway",
            "the Gateway's controller",
            chart=lock.chart("agentgateway"),
            namespace="agentgateway-system",
            values=platform / "agentgateway" / "values.yaml",
            shown_by=("deployment/agentgateway",),
        ),
    )


def crd(plural: str, group: str) -> str:
    """Name a definition for `shown_by`."""
    return f"customresourcedefinition/{plural}.{group}"
