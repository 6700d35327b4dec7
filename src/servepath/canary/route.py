"""The HTTPRoute of a canary: a `RouteState` becomes the object, and the object is read back as a `RouteState`.

Its shape (matches, filters, timeouts) is that of `manifests/canary/base`; here it is given names, weights and state.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from servepath.canary.state import Canary, Phase, RouteState
from servepath.cluster.objects import MANAGED_BY, OWNER, Json, place
from servepath.errors import ClusterError
from servepath.manifests import manifests_directory
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.render import INSTANCE, GatewayRef, build, object_name
from servepath.serving.slots import SLOT_HEADER, STABLE_ANNOTATION, Slot, route_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REVISION_HEADER = "servepath-revision"
"""The header of an answer that says by which state of the route it was led."""

REVISION_ANNOTATION = "servepath.dev/revision"
PER_PERCENT = 10_000
PLACE_WEIGHT = 1
"""Of a place whose slot gets nothing: one of a million requests goes there, to the other slot as all do."""

_BACKENDS = {None: 2, Slot.BLUE: 1, Slot.GREEN: 1}
"""How many backends each rule has: the one that leads everybody by weight, and the one of each slot's header."""

CANARY = "canary.servepath.dev/"
"""Prefix of the annotations of a canary under way, one for each field of `Canary`."""


async def route_manifest() -> Json:
    """Build `manifests/canary/base`: the route's shape.

    Raises:
        ClusterError: kustomize failed.
    """
    (base,) = await build(manifests_directory() / "canary" / "base")
    return base


def render_route(
    base: Json, spec: ServingSpec, gateway: GatewayRef, hostnames: Sequence[str], state: RouteState
) -> Json:
    """Give the route of a state.

    Args:
        base: the route's shape, by `route_manifest`.
        spec: the model's namespace, name and request timeout.
        gateway: the Gateway that it attaches to.
        hostnames: the stable hostname, and others that lead to the same.
        state: whose weights and annotations it gets.
    """
    name = route_name(spec.name)
    metadata = {
        "name": name,
        "namespace": spec.namespace,
        "labels": {**base["metadata"]["labels"], INSTANCE: name, MANAGED_BY: OWNER},
    }
    parents = [
        {**parent, "namespace": gateway.namespace, "name": gateway.name} for parent in base["spec"]["parentRefs"]
    ]
    rules = [_rule(rule, spec, state) for rule in base["spec"]["rules"]]
    route = {
        **base,
        "metadata": metadata,
        "spec": {"parentRefs": parents, "hostnames": list(hostnames), "rules": rules},
    }
    return with_annotations(route, state)


def with_annotations(route: Json, state: RouteState) -> Json:
    """Give a route with a state's annotations, those of servepath's that are not of the state taken away."""
    annotations = {
        key: value for key, value in (route["metadata"].get("annotations") or {}).items() if not key.startswith(CANARY)
    }
    annotations |= {STABLE_ANNOTATION: str(state.stable), REVISION_ANNOTATION: str(state.revision)}
    annotations |= dict(_written(state.canary)) if state.canary else {}
    return {**route, "metadata": {**route["metadata"], "annotations": annotations}}


def read_state(route: Mapping[str, Any]) -> RouteState:
    """Read the state of a route.

    Raises:
        ClusterError: its annotations, rules or weights are not as servepath wrote them: somebody changed them by hand.
    """
    annotations = route["metadata"].get("annotations") or {}
    fields = {key.removeprefix(CANARY): value for key, value in annotations.items() if key.startswith(CANARY)}
    try:
        state = RouteState(
            stable=Slot(annotations[STABLE_ANNOTATION]),
            canary=_read(fields) if fields else None,
            revision=int(annotations[REVISION_ANNOTATION]),
        )
    except (KeyError, ValueError) as error:
        raise _changed_by_hand(route, f"its annotations cannot be read ({error})") from error
    try:
        places = [(_slot_of(rule), len(rule["backendRefs"])) for rule in route["spec"]["rules"]]
        weights = read_weights(route)
    except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
        raise _changed_by_hand(route, f"its rules cannot be read ({type(error).__name__} {error})") from error
    # The next write would drop what is not servepath's.
    if len(places) != len(_BACKENDS) or dict(places) != _BACKENDS:
        rules = ", ".join(f"{slot or 'everybody'} {backends}" for slot, backends in places)
        raise _changed_by_hand(route, f"its rules have other backends ({rules})")
    if filters := ", ".join(_foreign_filters(route, state.revision)):
        raise _changed_by_hand(route, f"its rules have other filters ({filters})")
    expected = {slot: share for slot, share in state.weights.items() if share}
    if weights != expected:
        raise _changed_by_hand(route, f"its weights are {_in_words(weights)} and not {_in_words(expected)}")
    return state


def read_weights(route: Mapping[str, Any]) -> dict[Slot, int]:
    """Read the share of each slot, in percent, from the rule that leads everybody who names no slot."""
    backends: list[Json] = next((rule["backendRefs"] for rule in route["spec"]["rules"] if _slot_of(rule) is None), [])
    return {
        _slot_of_backend(backend): round(backend["weight"] / PER_PERCENT)
        for backend in backends
        if backend["weight"] != PLACE_WEIGHT
    }


def read_hostnames(route: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the hostnames, the stable one first."""
    return tuple(route["spec"]["hostnames"])


def _rule(rule: Json, spec: ServingSpec, state: RouteState) -> Json:
    """Give a rule of the manifest its backends, their weights, the revision and the timeout.

    Every rule and every place of it is always there, in its order and with a weight: a slot that is to get nothing has
    the other slot's service in its place. Envoy Gateway names Envoy's clusters by rule and place and leaves those
    without weight out; a cluster that goes is gone a moment before the route that leads to it, and whoever comes in
    between gets an empty HTTP 500 (seen once, at a rollback). So what changes is only where a cluster leads and how
    much it gets.
    """
    made = copy.deepcopy(rule)
    is_weighted = _slot_of(rule) is None
    backends = {_slot_of_backend(backend): backend for backend in made["backendRefs"]}
    served = {slot: share for slot, share in state.weights.items() if share or not is_weighted}
    made["backendRefs"] = [
        {
            **(backends[slot] if slot in served else _in_place_of(backends[slot], slot.other)),
            "name": service_of(spec, slot if slot in served else slot.other),
            "weight": served[slot] * PER_PERCENT if slot in served and is_weighted else PLACE_WEIGHT,
        }
        for slot in backends
    ]
    _header(made["filters"], REVISION_HEADER)["value"] = str(state.revision)
    made["timeouts"] = {"request": f"{spec.profile.request_timeout_s}s"}
    return made


def _in_place_of(backend: Json, slot: Slot) -> Json:
    """Give a backend that names the other slot in its answers."""
    named = copy.deepcopy(backend)
    _header(named["filters"], SLOT_HEADER)["value"] = str(slot)
    return named


def service_of(spec: ServingSpec, slot: Slot) -> str:
    """Name the Service that KServe makes for a slot's predictor."""
    return f"{object_name(spec.in_slot(slot), ServingPath.KSERVE)}-predictor"


def _slot_of(rule: Mapping[str, Any]) -> Slot | None:
    """Give the slot that a rule's header names, None for the weighted rule."""
    headers = rule["matches"][0].get("headers") or []
    return next((Slot(one["value"]) for one in headers if one["name"] == SLOT_HEADER), None)


def _slot_of_backend(backend: Mapping[str, Any]) -> Slot:
    """Give the slot that a backend names in its answers."""
    return Slot(_header(backend["filters"], SLOT_HEADER)["value"])


def _header(filters: Sequence[Json], name: str) -> Json:
    """Find the header that a list of filters sets on answers."""
    modifiers = [one.get("responseHeaderModifier") or {} for one in filters]
    found: Json = next(header for one in modifiers for header in one.get("set") or () if header["name"] == name)
    return found


def _foreign_filters(route: Mapping[str, Any], revision: int) -> Iterator[str]:
    """Say of which rule and of what type each filter is that servepath did not write so, or that is missing."""
    for rule in route["spec"]["rules"]:
        lists = [(rule.get("filters") or [], REVISION_HEADER, str(revision))]
        lists += [(one["filters"], SLOT_HEADER, str(_slot_of_backend(one))) for one in rule["backendRefs"]]
        for filters, header, value in lists:
            setting = {"set": [{"name": header, "value": value}]}
            own = {"type": "ResponseHeaderModifier", "responseHeaderModifier": setting}
            others = [str(one["type"]) for one in filters if one != own]
            for found in others if own in filters else [*others, f"no {header}: {value}"]:
                yield f"{_slot_of(rule) or 'everybody'} {found}"


def _written(canary: Canary) -> Iterator[tuple[str, str]]:
    """Give the annotations of a canary."""
    fields = {
        "id": canary.id,
        "slot": canary.slot,
        "modelcar": canary.modelcar,
        "replaced": canary.replaced,
        "steps": ",".join(map(str, canary.steps_percent)),
        "step": canary.step,
        "phase": canary.phase,
        "started": canary.started,
        "holder": canary.holder,
        "cause": canary.cause,
    }
    for name, value in fields.items():
        yield f"{CANARY}{name}", str(value)


def _read(fields: Mapping[str, str]) -> Canary:
    canary = Canary(
        id=fields["id"],
        slot=Slot(fields["slot"]),
        modelcar=fields["modelcar"],
        replaced=fields["replaced"],
        steps_percent=tuple(int(step) for step in fields["steps"].split(",")),
        step=int(fields["step"]),
        phase=Phase(fields["phase"]),
        started=fields["started"],
        holder=fields["holder"],
        cause=fields["cause"],
    )
    if not 0 <= canary.step < len(canary.steps_percent):
        raise ValueError(f"there is no step {canary.step}")
    return canary


def _changed_by_hand(route: Mapping[str, Any], what: str) -> ClusterError:
    metadata = route["metadata"]
    return ClusterError(
        f"somebody changed it: {what}",
        where=place(route),
        expected="the route as `servepath canary` wrote it",
        next_command=f"kubectl -n {metadata['namespace']} get httproute {metadata['name']} -o yaml",
    )


def _in_words(weights: Mapping[Slot, int]) -> str:
    return ", ".join(f"{slot} {weight}" for slot, weight in weights.items()) or "missing"
