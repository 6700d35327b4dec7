"""The stage `plan`: what would be copied, created and changed, at what cost, with what loss; nothing is changed."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import yaml

from servepath.canary.slots import CLUSTER_LOCAL
from servepath.cluster.objects import apply, place, read
from servepath.errors import ClusterError
from servepath.promotion.copying import plan_copy
from servepath.promotion.current import read_current, refuse_canary
from servepath.promotion.history import last_succeeded, read_history
from servepath.promotion.inventory import content_of
from servepath.promotion.model import Action, Plan, PlannedChange, PlannedCost
from servepath.promotion.preflight.results import missing_of, refuse_missing
from servepath.promotion.record import Strategy
from servepath.serving.model import ServingPath
from servepath.serving.render import GatewayRef, object_name, render
from servepath.serving.scalers import refuse_scaled
from servepath.serving.slots import route_name
from servepath.serving.stopped import deployment_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightkube import AsyncClient

    from servepath.cluster.objects import Json
    from servepath.evidence import CheckResult
    from servepath.promotion.current import Current
    from servepath.promotion.history import Kept
    from servepath.promotion.model import PromotionRequest
    from servepath.serving.model import ServingSpec

_INTERRUPTION = (
    "requests, from the stop of the engine that serves to the first completion of the new one, and again the other way "
    "if it fails: the two do not run at once"
)
_ENGINES_DURING = {Strategy.FIRST: 1, Strategy.CANARY: 2, Strategy.REPLACE: 1}


async def make_plan(client: AsyncClient, request: PromotionRequest) -> Plan:
    """Say what a promotion would do.

    Raises:
        UsageError: the spec cannot be.
        InputError: the source has no digest.
        RegistryError: a registry refuses or fails, or the source does not have the image.
        PromotionRefusedError: a canary is under way that no promotion leads, what serves scales by itself, or what
            preflight finds missing keeps the cluster from being read.
        ClusterError: the API server refuses.
    """
    checks = await request.preflight(await _place(client, request)) if request.preflight else ()
    try:
        return await _plan(client, request, missing_of(checks))
    except ClusterError:
        # What cannot be read is among what is missing, with all the rest and the commands that fix it.
        refuse_missing(checks)
        raise


async def _place(client: AsyncClient, request: PromotionRequest) -> ServingSpec:
    """Give the spec under its slot's names: a canary needs room beside what serves, a replacement takes its room."""
    try:
        current = await read_current(client, request.spec, request.path)
    except ClusterError:
        return request.spec  # what cannot be read, preflight says
    strategy = current.strategy(request.path, replace=request.replace)
    return current.place_of(request.spec, strategy, request.path)


async def _plan(client: AsyncClient, request: PromotionRequest, missing: tuple[CheckResult, ...]) -> Plan:
    spec, path = request.spec, request.path
    history = await read_history(client, spec.namespace, spec.name)
    unfinished = tuple(one.record.number for one in history if not one.record.is_over)
    current = await read_current(client, spec, path)
    if not unfinished:  # else the canary is that of a killed promotion, which is undone first
        refuse_canary(current, spec)
    if current.engine is not None:
        wanted = spec.profile.autoscaling.autoscaler
        await refuse_scaled(client, spec.namespace, deployment_name(current.engine, path), wanted)
    strategy = current.strategy(path, replace=request.replace)
    copy = await plan_copy(request.source, request.cluster.registry, request.repository, request.registries)
    return Plan(
        spec=spec,
        path=path,
        strategy=strategy,
        serving=serving_in_words(current, path, history),
        copy=copy,
        changes=await _changes(client, request, current, strategy),
        steps=_steps(request, current, strategy),
        cost=_cost(request, current, strategy),
        may_be_lost=_may_be_lost(current, strategy),
        missing=missing,
        unfinished=unfinished,
    )


def serving_in_words(current: Current, path: ServingPath, history: Sequence[Kept]) -> str:
    """Say what serves now, empty for nothing."""
    digest = current.digest(path)
    if not digest:
        return ""
    last = last_succeeded(history)
    by = f"promotion {last.record.number}" if last and last.record.digest == digest else "no promotion of servepath"
    return f"{digest} ({by})" + ("" if current.is_serving else ", which does not serve now")


async def _changes(
    client: AsyncClient, request: PromotionRequest, current: Current, strategy: Strategy
) -> tuple[PlannedChange, ...]:
    """Give what becomes of each object: the API server itself says what it would make of it."""
    path = request.path
    spec = current.place_of(request.spec, strategy, path)
    gateway = GatewayRef(request.cluster.gateway_namespace, request.cluster.gateway_name)
    is_new_namespace = await read(client, "Namespace", spec.namespace) is None
    name = object_name(spec, path)
    secret = None if is_new_namespace else await read(client, "Secret", name, spec.namespace)
    changes = [PlannedChange(f"Namespace {spec.namespace}", Action.CREATE)] if is_new_namespace else []
    changes.append(PlannedChange(f"Secret {spec.namespace}/{name}", Action.KEEP if secret else Action.CREATE))
    labels = CLUSTER_LOCAL if strategy is Strategy.CANARY else current.labels
    objects = [obj for obj in await render(spec, path, gateway=gateway) if obj["kind"] != "Namespace"]
    changes += [await _change(client, _as_applied(obj, path, secret, labels), is_new_namespace) for obj in objects]
    if path is ServingPath.KSERVE:
        changes.append(_route_change(spec, route_name(request.name), current, strategy))
    return tuple(changes)


def _as_applied(obj: Json, path: ServingPath, secret: Json | None, labels: dict[str, str]) -> Json:
    """Give an object as `deploy` applies it: with the version of its key, and the labels of its slot."""
    version = {"servepath.dev/secret-version": secret["metadata"]["resourceVersion"]} if secret else {}
    if obj["kind"] == "InferenceService":
        obj["metadata"]["labels"] |= labels
        obj["spec"]["predictor"]["annotations"] = version
    if obj["kind"] == "Deployment" and path is ServingPath.RAW:
        obj["spec"]["template"]["metadata"]["annotations"] = version
    return obj


async def _change(client: AsyncClient, obj: Json, is_new_namespace: bool) -> PlannedChange:  # noqa: FBT001
    metadata = obj["metadata"]
    present = None if is_new_namespace else await read(client, obj["kind"], metadata["name"], metadata["namespace"])
    # A dry run needs the namespace to be there.
    after = obj if is_new_namespace else await apply(client, obj, dry_run=True)
    diff = _diff(content_of(present) if present else None, content_of(after))
    action = Action.CREATE if present is None else Action.CHANGE if diff else Action.KEEP
    return PlannedChange(place(obj), action, diff)


def _diff(before: Json | None, after: Json) -> str:
    """Give the unified diff of two objects as YAML, empty when they are the same."""
    texts = [yaml.safe_dump(obj, sort_keys=True).splitlines() if obj else [] for obj in (before, after)]
    return "\n".join(difflib.unified_diff(texts[0], texts[1], "now", "promoted", lineterm="", n=2))


def _route_change(spec: ServingSpec, name: str, current: Current, strategy: Strategy) -> PlannedChange:
    where = f"HTTPRoute {spec.namespace}/{name}"
    if not current.has_route:
        return PlannedChange(where, Action.CREATE, "the stable hostname, which leads to what is promoted")
    if strategy is Strategy.CANARY:
        return PlannedChange(
            where, Action.CHANGE, f"weights, step by step: {current.slot} 100 -> {current.slot.other} 100"
        )
    return PlannedChange(where, Action.KEEP)


def _steps(request: PromotionRequest, current: Current, strategy: Strategy) -> tuple[str, ...]:
    gate = "smoke checks" + (
        ", benchmark against the objectives and what was promoted last" if request.gate.measured else ""
    )
    slot = f"slot {current.slot.other if strategy is Strategy.CANARY else current.slot}"
    where = {
        Strategy.FIRST: "for the first time",
        Strategy.CANARY: f"into the {slot}, beside what serves",
        Strategy.REPLACE: f"in the place of what is there ({slot})",
    }[strategy]
    shift = {
        Strategy.FIRST: "lead the stable hostname to it",
        Strategy.CANARY: f"{_shares(request)}; then stop the slot {current.slot}",
        Strategy.REPLACE: "none: it has the place already",
    }[strategy]
    return (
        f"copy {request.source} to {request.spec.modelcar_reference.partition('@')[0]}",
        f"deploy {where}",
        f"gate: {gate}",
        f"shift: {shift}",
        "verify: the stable hostname answers, from this digest",
        *(("stop it: it is kept, and nothing runs",) if request.stop_after else ()),
    )


def _shares(request: PromotionRequest) -> str:
    if request.canary is None:
        return "100% of the traffic at once"
    shares = ", ".join(f"{share}%" for share in request.canary.steps_percent)
    return f"{shares} of the traffic, each held {request.canary.hold_s:g} s"


def _cost(request: PromotionRequest, current: Current, strategy: Strategy) -> PlannedCost | None:
    if request.usd_per_hour is None:
        return None
    now = request.usd_per_hour if current.is_serving else 0.0
    after = 0.0 if request.stop_after else request.usd_per_hour
    return PlannedCost(now, request.usd_per_hour * _ENGINES_DURING[strategy], after)


def _may_be_lost(current: Current, strategy: Strategy) -> tuple[str, ...]:
    if strategy is Strategy.REPLACE and current.is_serving:
        return (_INTERRUPTION,)
    return ()
