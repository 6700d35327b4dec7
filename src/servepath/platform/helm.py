"""Helm releases: which a cluster has, and installing a chart of the lock."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.errors import ClusterError
from servepath.platform.commands import helm, helm_command

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.cluster.model import Cluster
    from servepath.platform.lock import ChartPin


@dataclass(frozen=True, slots=True)
class HelmRelease:
    """A release in the cluster.

    Attributes:
        name: its name.
        namespace: its namespace.
        chart: its chart, as `NAME-VERSION`.
        status: `deployed`, `failed`, `pending-install`, …
    """

    name: str
    namespace: str
    chart: str
    status: str

    @property
    def is_pending(self) -> bool:
        """Whether helm is at work on it, or was killed at it: helm itself cannot tell, and touches it no more."""
        return self.status.startswith("pending-")

    def is_of(self, pin: ChartPin) -> bool:
        """Whether a chart is what it is of, at whatever version."""
        return re.fullmatch(rf"{re.escape(_chart_name(pin))}-v?\d.*", self.chart) is not None

    def is_at(self, pin: ChartPin) -> bool:
        """Whether a chart's version is what is deployed."""
        versions = (pin.version, pin.version.removeprefix("v"))
        return self.status == "deployed" and self.chart in {f"{_chart_name(pin)}-{version}" for version in versions}


async def releases(cluster: Cluster) -> tuple[HelmRelease, ...]:
    """Give the cluster's releases, those that are pending too.

    Raises:
        ClusterError: helm is missing, or the API server does not answer it.
    """
    found = {}
    # Helm 3 leaves out what is pending unless it is asked for, Helm 4 knows no `--all`; 0 is no limit to both.
    for pending in ((), ("--pending",)):
        command = ("list", "--all-namespaces", *pending, "--max=0", "--output=json")
        for entry in json.loads((await helm(cluster, *command)).succeeded()):
            release = HelmRelease(entry["name"], entry["namespace"], entry["chart"], entry["status"])
            found[release.namespace, release.name] = release
    return tuple(found.values())


def refuse_pending(cluster: Cluster, release: HelmRelease) -> None:
    """Refuse a release that helm would refuse, with the command that puts an end to it.

    Raises:
        ClusterError: it is pending.
    """
    if not release.is_pending:
        return
    undo = "uninstall" if release.status == "pending-install" else "rollback"
    raise ClusterError(
        f"it is {release.status}: another helm is at work on it, or was killed at it",
        where=f"the Helm release {release.namespace}/{release.name}",
        expected="a release that no helm is at work on",
        next_command=" ".join(helm_command(cluster, undo, release.name, "-n", release.namespace)),
    )


def refuse_elsewhere(cluster: Cluster, pin: ChartPin, namespace: str, release: HelmRelease) -> None:
    """Refuse a chart's release of another namespace, which owns what ours would bring, unless it is at the version.

    Raises:
        ClusterError: it is at another version, pending or failed.
    """
    if release.is_at(pin):
        return
    refuse_pending(cluster, release)
    upgrade = ("upgrade", release.name, *_chart(pin), "-n", release.namespace, "--reuse-values", "--wait")
    raise ClusterError(
        f"{release.chart}, {release.status}, is another namespace's, and the chart cannot be installed twice",
        where=f"the Helm release {release.namespace}/{release.name}",
        expected=f"{_chart_name(pin)}-{pin.version} there, or the release in {namespace}",
        next_command=" ".join(helm_command(cluster, *upgrade)),
    )


async def install(cluster: Cluster, pin: ChartPin, namespace: str, values: Path | None, *, timeout_s: int) -> None:
    """Install a chart, or bring its release to the lock's version, and await what it starts.

    Args:
        cluster: where.
        pin: the chart; its name is the release's.
        namespace: the release's namespace; it must exist.
        values: a values file, None for the chart's own.
        timeout_s: budget in seconds.

    Raises:
        ClusterError: helm is missing, the chart could not be had, or what it starts was not ready in time. A failed
            installation is left as it is: its pods say why.
    """
    settings = [] if values is None else [f"--values={values}"]
    command = ("upgrade", "--install", pin.name, *_chart(pin), f"--namespace={namespace}", *settings)
    (await helm(cluster, *command, "--wait", f"--timeout={timeout_s}s")).succeeded()


def _chart(pin: ChartPin) -> tuple[str, ...]:
    """Name a chart and its version to helm."""
    version = () if pin.digest else (f"--version={pin.version}",)
    return (pin.source, *version, *(("--plain-http",) if pin.plain_http else ()))


def _chart_name(pin: ChartPin) -> str:
    return pin.chart.rpartition("/")[2]
