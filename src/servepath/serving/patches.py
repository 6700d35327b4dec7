"""Operations of JSON patches, as kustomize takes them: what every path's overlay sets in the object of its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servepath.serving.model import Profile

Operation: TypeAlias = dict[str, Any]


def replace(path: str, value: Any) -> Operation:
    """Give the operation that sets what is there already."""
    return {"op": "replace", "path": path, "value": value}


def add(path: str, value: Any) -> Operation:
    """Give the operation that sets what may not be there, or appends."""
    return {"op": "add", "path": path, "value": value}


def patch(kind: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Give kustomize's patch of every object of a kind."""
    return {"patch": yaml.safe_dump(list(operations), sort_keys=False), "target": {"kind": kind}}


def rename(before: str, now: str) -> dict[str, Any]:
    """Give kustomize's patch that names every object of one name anew."""
    return {
        "patch": yaml.safe_dump([replace("/metadata/name", now)], sort_keys=False),
        "target": {"name": before},
        "options": {"allowNameChange": True},
    }


def set_flags(container: Mapping[str, Any], wanted: Sequence[str], root: str) -> list[Operation]:
    """Set each flag where the overlay has it, else append it: vLLM would take the last of two, a reader the first."""
    present = {argument.partition("=")[0]: index for index, argument in enumerate(container["args"])}
    return [
        replace(f"{root}/{present[flag]}", argument) if flag in present else add(f"{root}/-", argument)
        for argument in wanted
        for flag in [argument.partition("=")[0]]
    ]


def set_resources(profile: Profile, root: str) -> list[Operation]:
    """Set what one engine may use."""
    return [
        replace(f"{root}/requests/cpu", profile.cpu_request),
        replace(f"{root}/requests/memory", profile.memory_request),
        replace(f"{root}/limits/cpu", profile.cpu_limit),
        replace(f"{root}/limits/memory", profile.memory_limit),
    ]


def set_variables(container: Mapping[str, Any], values: Mapping[str, str], root: str) -> list[Operation]:
    """Set environment variables; one that the overlay does not have is left out."""
    index = {variable["name"]: position for position, variable in enumerate(container["env"])}
    return [replace(f"{root}/{index[name]}/value", value) for name, value in values.items() if name in index]


def set_secret(container: Mapping[str, Any], name: str, root: str) -> list[Operation]:
    """Set the name of the Secret that holds the engine's key."""
    position = [variable["name"] for variable in container["env"]].index("VLLM_API_KEY")
    return [replace(f"{root}/{position}/valueFrom/secretKeyRef/name", name)]
