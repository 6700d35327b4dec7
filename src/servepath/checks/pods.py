"""Pure readings of a pod's JSON: which container is what, and which digests it names and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servepath.cluster.objects import Json


def containers(pod: Json) -> list[Json]:
    """Give every container of the spec, init containers first."""
    spec = pod.get("spec", {})
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def container(pod: Json, name: str) -> Json | None:
    """Give the container or init container of that name."""
    return next((one for one in containers(pod) if one.get("name") == name), None)


def digest_of(reference: str) -> str:
    """Give the `sha256:…` of an image reference or an imageID, empty when it holds none."""
    _, found, digest = reference.rpartition("sha256:")
    return f"sha256:{digest}" if found else ""


def image_id(pod: Json, name: str) -> str:
    """Give `status.…containerStatuses[name].imageID`, empty before the container was created."""
    status = pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(kind) or []:
            if one.get("name") == name:
                return str(one.get("imageID") or "")
    return ""


def image_volumes(pod: Json) -> dict[str, str]:
    """Give the references of the pod's image volumes by volume name."""
    volumes = pod.get("spec", {}).get("volumes") or []
    return {one["name"]: str(one["image"].get("reference", "")) for one in volumes if one.get("image")}


def images(pod: Json) -> str:
    """Give every container's and image volume's reference in words, for a failure's `seen`."""
    named = [f"{one.get('name')}={one.get('image')}" for one in containers(pod)]
    named += [f"volume {name}={reference}" for name, reference in image_volumes(pod).items()]
    return ", ".join(named) or "no container"


def engine(pod: Json, engine_image: str) -> Json | None:
    """Give the container whose image has the engine's digest."""
    wanted = digest_of(engine_image)
    return next((one for one in containers(pod) if wanted and digest_of(str(one.get("image", ""))) == wanted), None)


def environment(one: Json) -> dict[str, str]:
    """Give a container's literal environment; values taken from Secrets or fields are left out."""
    return {item["name"]: str(item.get("value", "")) for item in one.get("env") or [] if "valueFrom" not in item}


def effective(pod: Json, one: Json, field: str) -> Any:
    """Give a security field as it holds for a container: its own value, else the pod's."""
    own = (one.get("securityContext") or {}).get(field)
    if own is not None:
        return own
    return (pod.get("spec", {}).get("securityContext") or {}).get(field)
