"""The autoscalers beside a path's Deployment: held while it is stopped, kept awake while it is awaited."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from lightkube.core.exceptions import ApiError
from lightkube.types import CascadeType, PatchType

from servepath.cluster.client import errors_of
from servepath.cluster.objects import KINDS, Json, is_kind, is_ours, read
from servepath.cluster.wait import until
from servepath.errors import ClusterError, PromotionRefusedError
from servepath.serving.autoscaling import AUTOSCALER_KINDS, FORCE_ACTIVATION, PAUSED_REPLICAS
from servepath.serving.model import AutoscalerClass, Autoscaling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lightkube import AsyncClient

_KEDA_CRD = "scaledobjects.keda.sh"
_MADE_TIMEOUT_S = 60.0
_NOT_FOUND = 404
_KIND = {AutoscalerClass.HPA: "HorizontalPodAutoscaler", AutoscalerClass.KEDA: "ScaledObject"}


async def require_scaler(client: AsyncClient, autoscaling: Autoscaling) -> None:
    """Refuse the class `keda` where KEDA is not: KServe would say ReconcileFailed, and the raw path "not found".

    Raises:
        ClusterError: the cluster does not know ScaledObjects.
    """
    if autoscaling.autoscaler is AutoscalerClass.KEDA and not await is_kind(client, _KEDA_CRD):
        raise ClusterError(
            "KEDA is not installed",
            where=f"CustomResourceDefinition {_KEDA_CRD}",
            expected="KEDA 2.18 or newer for --autoscaler keda",
            next_command="helm install keda keda --repo https://kedacore.github.io/charts --namespace keda",
        )


@asynccontextmanager
async def kept_awake(client: AsyncClient, namespace: str, name: str, autoscaling: Autoscaling) -> AsyncIterator[None]:
    """Hold off KEDA's scaling to zero while a first completion is awaited.

    Nothing has asked for it yet, so KEDA would take the engine away as soon as it sees it (an object that was never
    active has no cooldown), and a path that sleeps would not be awaited but by its clients' requests.

    Args:
        client: the Kubernetes client.
        namespace: where.
        name: the Deployment's name, which its ScaledObject shares.
        autoscaling: what was deployed; where it goes to zero, the ScaledObject is awaited: KServe makes it later.

    Raises:
        ClusterError: the API server refuses, or the ScaledObject is not made.
    """
    if autoscaling.min_replicas == 0:
        await until(client, "ScaledObject", namespace, name, _there, timeout_s=_MADE_TIMEOUT_S, expected="made")
    found = await read(client, "ScaledObject", name, namespace)
    if found is None or found["spec"].get("minReplicaCount", 0) > 0:
        yield
        return
    await _annotate(client, namespace, name, FORCE_ACTIVATION, "true")
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await _annotate(client, namespace, name, FORCE_ACTIVATION, None)


async def hold_scaler(client: AsyncClient, namespace: str, name: str, *, held: bool) -> None:
    """Hold a path's ScaledObject at no replicas, or let it go; nothing where there is none.

    Without it KEDA starts a path of at least one replica again a moment after it was stopped. A
    HorizontalPodAutoscaler needs no such thing: it leaves a Deployment of no replicas alone.

    Raises:
        ClusterError: the API server refuses.
    """
    if await read(client, "ScaledObject", name, namespace) is not None:
        await _annotate(client, namespace, name, PAUSED_REPLICAS, "0" if held else None)


async def refuse_scaled(client: AsyncClient, namespace: str, name: str, wanted: AutoscalerClass) -> None:
    """Refuse the next version of a release that scales by itself where that version would not.

    Args:
        client: the Kubernetes client.
        namespace: where.
        name: the name of the Deployment that serves, which its autoscaler shares.
        wanted: the class of the next version.

    Raises:
        PromotionRefusedError: an autoscaler decides how many engines serve, and would no more.
        ClusterError: the API server refuses.
    """
    if wanted is not AutoscalerClass.NONE:
        return
    for kind in AUTOSCALER_KINDS:
        if await read(client, kind, name, namespace) is not None:
            raise PromotionRefusedError(
                f"a {kind} decides how many engines serve, and the next version would be one engine",
                where=f"{kind} {namespace}/{name}",
                expected="a release of one engine: its autoscaler is not carried on to the next version",
                next_command=f"kubectl -n {namespace} get {kind.lower()} {name}",
            )


async def retire_scalers(client: AsyncClient, namespace: str, name: str, wanted: AutoscalerClass) -> None:
    """Delete the autoscalers of a Deployment that are not of the wanted class: two of them would fight over it.

    KServe v0.19.0 leaves the ScaledObject where the class goes from `keda` to another one: its reconciler of the new
    class looks for an HPA alone (reconcilers/autoscaler/autoscaler_reconciler.go, createAutoscaler).

    Args:
        client: the Kubernetes client.
        namespace: where.
        name: the Deployment's name, which its autoscaler shares.
        wanted: the class that stays.

    Raises:
        ClusterError: the API server refuses.
    """
    for kind in AUTOSCALER_KINDS:
        if kind == _KIND.get(wanted):
            continue
        found = await read(client, kind, name, namespace)
        if found is not None and is_ours(found):
            await _delete(client, kind, namespace, name)


async def _delete(client: AsyncClient, kind: str, namespace: str, name: str) -> None:
    """Delete an autoscaler that KServe may be deleting too."""
    with errors_of(f"{kind} {namespace}/{name}"):
        try:
            await client.delete(KINDS[kind], name, namespace=namespace, cascade=CascadeType.BACKGROUND)
        except ApiError as error:
            if error.status.code != _NOT_FOUND:
                raise


def _there(obj: Json | None) -> Json | None:
    return obj


async def _annotate(client: AsyncClient, namespace: str, name: str, key: str, value: str | None) -> None:
    patch = {"metadata": {"annotations": {key: value}}}
    with errors_of(f"ScaledObject {namespace}/{name}"):
        await client.patch(KINDS["ScaledObject"], name, patch, namespace=namespace, patch_type=PatchType.MERGE)
