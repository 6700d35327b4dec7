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

_UNINSTALLING = "uninstalling"
_LISTED = ("--deployed", "--failed", "--pending", "--uninstalling")
"""By name, because Helm 3 lists what is deployed and failed alone unless it is asked, and Helm 4 knows no `--all`
(https://helm.sh/docs/helm/helm_list). What is left out has been uninstalled or superseded: nothing is in the way."""


@dataclass(frozen=True, slots=True)
class HelmRelease:
    """A release in the cluster.

    Attributes:
        name: its name.
        namespace: its namespace.
        chart: its chart, as `NAME-VERSION`.
        status: `deployed`, `failed`, `pending-install`, `uninstalling`, …
    """

    name: str
    namespace: str
    chart: str
    status: str

    @property
    def is_unfinished(self) -> bool:
        """Whether helm is at work on it, or was killed at it: helm itself cannot tell, and upgrades it no more."""
        return self.status.startswith("pending-") or self.status == _UNINSTALLING

    def is_of(self, pin: ChartPin) -> bool:
        """Whether a chart is what it is of, at whatever version."""
        return re.fullmatch(rf"{re.escape(_chart_name(pin))}-v?\d.*", self.chart) is not None

    def is_at(self, pin: ChartPin) -> bool:
        """Whether a chart's version is what is deployed."""
        versions = (pin.version, pin.version.removeprefix("v"))
        return self.status == "deployed" and self.chart in {f"{_chart_name(pin)}-{version}" for version in versions}


async def releases(cluster: Cluster) -> tuple[HelmRelease, ...]:
    """Give the cluster's releases, those that no helm has finished too.

    Raises:
        ClusterError: helm is missing, or the API server does not answer it.
    """
    command = ("list", "--all-namespaces", *_LISTED, "--max=0", "--output=json")  # 0 is no limit
    entries = json.loads((await helm(cluster, *command)).succeeded())
    return tuple(HelmRelease(entry["name"], entry["namespace"], entry["chart"], entry["status"]) for entry in entries)


def refuse_unfinished(cluster: Cluster, release: HelmRelease) -> None:
    """Refuse a release that helm would refuse, with the command that puts an end to it.

    An `uninstalling` one is uninstalled again: helm refuses that of `uninstalled` ones alone, and what is gone already
    is no error to it (https://github.com/helm/helm/blob/v3.19.0/pkg/action/uninstall.go). To an upgrade it says no
    more than that the release "has no deployed releases".

    Raises:
        ClusterError: it is not finished.
    """
    if not release.is_unfinished:
        return
    undo = "uninstall" if release.status in ("pending-install", _UNINSTALLING) else "rollback"
    raise ClusterError(
        f"it is {release.status}: another helm is at work on it, or was killed at it",
        where=f"the Helm release {release.namespace}/{release.name}",
        expected="a release that no helm is at work on",
        next_command=" ".join(helm_command(cluster, undo, release.name, "-n", release.namespace)),
    )


def refuse_elsewhere(cluster: Cluster, pin: ChartPin, namespace: str, release: HelmRelease) -> None:
    """Refuse a chart's release of another namespace, which owns what ours would bring, unless it is at the version.

    Raises:
        ClusterError: it is at another version, not finished or failed.
    """
    if release.is_at(pin):
        return
    refuse_unfinished(cluster, release)
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
