"""What the llm-d path needs of a cluster besides the platform: its controller, its kinds and its presets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from servepath.cluster.client import kubernetes
from servepath.cluster.objects import is_kind, read
from servepath.evidence import CheckResult, Verdict
from servepath.platform.parts import Part, crd, inference_extension

if TYPE_CHECKING:
    from pathlib import Path

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.platform.lock import Lock

NEWER_POOLS = "inferencepools.inference.networking.k8s.io"
OLDER_POOLS = "inferencepools.inference.networking.x-k8s.io"
"""Needed too: without this kind no reconciliation of a scheduler succeeds, also where the Gateway takes the newer pools
(KServe v0.19.0, pkg/controller/v1alpha2/llmisvc: scheduler.go, reconcileV1Alpha2InferencePool)."""

KINDS = (
    "llminferenceservices.serving.kserve.io",
    "llminferenceserviceconfigs.serving.kserve.io",
    NEWER_POOLS,
    OLDER_POOLS,
)
PRESETS = ("kserve-config-llm-template", "kserve-config-llm-scheduler", "kserve-config-llm-router-route")
"""What the controller completes an LLMInferenceService of one node with (the same folder, config_merge.go:50)."""

NAMESPACE = "kserve"
INSTALL = "servepath platform --llm-d --apply"


def llmd_parts(lock: Lock, manifests: Path) -> tuple[Part, ...]:
    """Give the parts, in the order in which they are installed, after the platform's own.

    Args:
        lock: the pins.
        manifests: the `manifests` directory.
    """
    platform = manifests / "platform"
    return (
        inference_extension(platform),
        Part(
            "gateway-api-inference-extension-v1alpha2",
            "the older InferencePools, which KServe's controller makes as well",
            manifests=platform / "inference-extension-v1alpha2",
            shown_by=(crd("inferencepools", "inference.networking.x-k8s.io"),),
        ),
        Part(
            "kserve-llmisvc-crd",
            "KServe's kinds of the llm-d path",
            chart=lock.chart("kserve-llmisvc-crd"),
            namespace=NAMESPACE,
            shown_by=(crd("llminferenceservices", "serving.kserve.io"),),
        ),
        Part(
            "kserve-llmisvc-resources",
            "the controller of LLMInferenceServices",
            chart=lock.chart("kserve-llmisvc-resources"),
            namespace=NAMESPACE,
            values=platform / "kserve-llmisvc" / "values.yaml",
            shown_by=("deployment/llmisvc-controller-manager",),
        ),
        Part(
            "kserve-runtime-configs",
            "the presets of LLMInferenceServices",
            chart=lock.chart("kserve-runtime-configs"),
            namespace=NAMESPACE,
            values=platform / "kserve-runtime-configs" / "values.yaml",
            shown_by=tuple(f"llminferenceserviceconfig/{name}" for name in PRESETS),
        ),
    )


async def missing(client: AsyncClient) -> tuple[str, ...]:
    """Give what is not there of the controller's kinds and presets, each as `KIND NAME`.

    Raises:
        ClusterError: the API server refuses.
    """
    kinds = [f"CustomResourceDefinition {name}" for name in KINDS if not await is_kind(client, name)]
    found = {name: await read(client, "LLMInferenceServiceConfig", name, NAMESPACE) for name in PRESETS}
    return (*kinds, *(f"LLMInferenceServiceConfig {NAMESPACE}/{name}" for name, one in found.items() if one is None))


async def check_llmd(cluster: Cluster) -> CheckResult:
    """Check that the llm-d path can be deployed.

    Raises:
        ClusterError: the kubeconfig cannot be used or the API server cannot be reached.
    """
    start = time.monotonic()
    async with kubernetes(cluster) as client:
        absent = await missing(client)
    return CheckResult(
        "llmd_is_installed",
        "cluster",
        Verdict.FAIL if absent else Verdict.PASS,
        "the kinds and presets of KServe's llm-d controller",
        f"not there: {', '.join(absent)}" if absent else f"{len(KINDS)} kinds, {len(PRESETS)} presets",
        time.monotonic() - start,
        INSTALL if absent else "",
    )
