"""Plan and install the platform: what is there is left alone, what is missing is installed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import anyio

from servepath.cluster.wait import conditions
from servepath.errors import ClusterError
from servepath.platform import helm
from servepath.platform.commands import kubectl
from servepath.platform.parts import Part, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from servepath.cluster.model import Cluster
    from servepath.platform.helm import HelmRelease
    from servepath.platform.lock import Lock

FIELD_MANAGER = "servepath"
_POLL_S = 0.2
_THEIRS = "installed by somebody else"


class Action(StrEnum):
    """What becomes of a part."""

    INSTALL = "install"
    UPGRADE = "upgrade"
    APPLY = "apply"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Step:
    """One part and what becomes of it.

    Attributes:
        part: the part.
        action: `install` what is missing, `upgrade` a release of another version, `apply` manifests (no change where
            they are there already), `keep` what is there.
        seen: what is there, in words.
    """

    part: Part
    action: Action
    seen: str

    @property
    def digest_command(self) -> str:
        """The command that prints a chart's digest, where it is fetched by version alone; empty otherwise."""
        chart = self.part.chart
        fetched = self.action in (Action.INSTALL, Action.UPGRADE)
        return chart.digest_command if chart is not None and fetched and not chart.digest else ""


async def plan(cluster: Cluster, lock: Lock, manifests: Path) -> tuple[Step, ...]:
    """Say what `install` would do; changes nothing.

    Raises:
        ClusterError: helm or kubectl is missing, the cluster does not answer, or a Helm release is in the way: one that
            another helm is at work on, or the same chart's of another namespace.
        UsageError: there are no manifests for the cluster's GatewayClass.
    """
    wanted = parts(lock, manifests, cluster.gateway_class)
    found = await helm.releases(cluster)
    return tuple([await _step(cluster, part, found) for part in wanted])


async def install(  # noqa: PLR0913
    cluster: Cluster,
    lock: Lock,
    manifests: Path,
    *,
    more: Sequence[Part] = (),
    timeout_s: int = 600,
    progress: Callable[[Step], None] = lambda _: None,
) -> tuple[Step, ...]:
    """Install what is missing, in order; run again, it continues where it ended.

    Args:
        cluster: where; `gateway_class` chooses the data plane.
        lock: the pins.
        manifests: the `manifests` directory.
        more: parts to install after the platform's own, such as the llm-d path's.
        timeout_s: budget of each part, in seconds.
        progress: called with each step when it begins.

    Returns:
        The steps that were taken.

    Raises:
        ClusterError: a part could not be installed; what was installed before it stays.
        UsageError: there are no manifests for the cluster's GatewayClass.
    """
    found = await helm.releases(cluster)
    taken = []
    wanted = {part.name: part for part in (*parts(lock, manifests, cluster.gateway_class), *more)}
    for part in wanted.values():
        step = await _step(cluster, part, found)
        progress(step)
        await _take(cluster, step, timeout_s)
        taken.append(step)
    return tuple(taken)


async def _step(cluster: Cluster, part: Part, found: Sequence[HelmRelease]) -> Step:
    chart = part.chart
    if chart is None:
        if await _is_there(cluster, part):
            return Step(part, Action.KEEP, _THEIRS)
        return Step(part, Action.APPLY, "not installed" if part.shown_by else "")
    named = [release for release in found if release.name == chart.name]
    ours = next((release for release in named if release.namespace == part.namespace), None)
    if ours is not None:
        helm.refuse_unfinished(cluster, ours)
        return Step(part, Action.KEEP if ours.is_at(chart) else Action.UPGRADE, f"{ours.chart}, {ours.status}")
    theirs = next((release for release in named if release.is_of(chart)), None)
    if not await _is_there(cluster, part):
        if theirs is None:
            return Step(part, Action.INSTALL, "not installed")
        helm.refuse_elsewhere(cluster, chart, part.namespace, theirs)
    seen = f": {theirs.chart}, {theirs.status}, in the namespace {theirs.namespace}" if theirs else ""
    return Step(part, Action.KEEP, f"{_THEIRS}{seen}")


async def _is_there(cluster: Cluster, part: Part) -> bool:
    if not part.shown_by:
        return False
    namespace = [f"--namespace={part.namespace}"] if part.namespace else []
    listed = (
        await kubectl(cluster, "get", "--ignore-not-found", "--output=name", *namespace, *part.shown_by)
    ).succeeded()
    return len(listed.split()) == len(part.shown_by)


async def _take(cluster: Cluster, step: Step, timeout_s: int) -> None:
    part = step.part
    if step.action is Action.KEEP:
        return
    if part.chart is not None:
        await helm.install(cluster, part.chart, part.namespace, part.values, timeout_s=timeout_s)
    elif part.manifests is not None:
        await _apply(cluster, part.name, part.manifests, timeout_s)


async def _apply(cluster: Cluster, name: str, manifests: Path, timeout_s: int) -> None:
    arguments = (
        "apply",
        "--server-side",
        f"--field-manager={FIELD_MANAGER}",
        "--output=name",
        f"--kustomize={manifests}",
    )
    try:
        applied = (await kubectl(cluster, *arguments)).succeeded().split()
    except ClusterError as error:
        raise ClusterError(f"{name} could not be applied: {error.what}", next_command=error.next_command) from error
    crds = [item for item in applied if item.startswith("customresourcedefinition.")]
    await _established(cluster, crds, timeout_s)
    gateways = [item for item in applied if item.startswith("gateway.gateway.networking.k8s.io/")]
    for gateway in gateways:
        namespace = f"--namespace={cluster.gateway_namespace}"
        timeout = f"--timeout={timeout_s}s"
        (await kubectl(cluster, "wait", "--for=condition=Programmed", timeout, namespace, gateway)).succeeded()


async def _established(cluster: Cluster, crds: list[str], timeout_s: int) -> None:
    missing = crds
    with anyio.move_on_after(timeout_s):
        # Not `kubectl wait`: it fails on a definition so new that its conditions are null (kubectl 1.34).
        while missing:
            found = json.loads((await kubectl(cluster, "get", "--output=json", *missing)).succeeded())
            items = found.get("items", [found])
            waiting = {item["metadata"]["name"] for item in items if not _is_established(item)}
            missing = [name for name in missing if name.partition("/")[2] in waiting]
            if missing:
                await anyio.sleep(_POLL_S)
        return
    raise ClusterError(
        f"not served within {timeout_s} s", where=", ".join(missing), next_command=f"kubectl describe {missing[0]}"
    )


def _is_established(crd: Mapping[str, Any]) -> bool:
    found = conditions(crd).get("Established")
    return found is not None and found.status == "True"
