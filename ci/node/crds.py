"""Applying custom resource definitions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.node.kubectl import Kubectl

_TIMEOUT_S = 60


async def apply(kubectl: Kubectl, definitions: Sequence[Mapping[str, Any]]) -> None:
    """Apply definitions and await that the API server serves them.

    Raises:
        ClusterError: the API server refused one, or did not serve it within a minute.
    """
    await kubectl.apply(definitions)
    names = [f"customresourcedefinition/{definition['metadata']['name']}" for definition in definitions]
    missing = names
    with anyio.move_on_after(_TIMEOUT_S):
        # Not `kubectl wait`: it fails on a definition so new that its conditions are null (kubectl 1.34).
        while missing:
            found = json.loads(await kubectl("get", "--output=json", *missing))
            missing = [_name(one) for one in found.get("items", [found]) if not _is_established(one)]
            if missing:
                await anyio.sleep(0.1)
        return
    raise ClusterError("the API server does not serve a kind", where=", ".join(missing), expected="Established")


def _name(definition: Mapping[str, Any]) -> str:
    return f"customresourcedefinition/{definition['metadata']['name']}"


def _is_established(definition: Mapping[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
