"""Helm releases: which a cluster has, and installing a chart of the lock."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.platform.commands import helm

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

    def is_at(self, pin: ChartPin) -> bool:
        """Whether a chart's version is what is deployed."""
        chart_name = pin.chart.rpartition("/")[2]
        versions = (pin.version, pin.version.removeprefix("v"))
        return self.status == "deployed" and self.chart in {f"{chart_name}-{version}" for version in versions}


async def releases(cluster: Cluster) -> dict[str, HelmRelease]:
    """Give the cluster's releases by name.

    Raises:
        ClusterError: helm is missing, or the API server does not answer it.
    """
    listed = (await helm(cluster, "list", "--all-namespaces", "--all", "--output=json")).succeeded()
    return {
        entry["name"]: HelmRelease(entry["name"], entry["namespace"], entry["chart"], entry["status"])
        for entry in json.loads(listed)
    }


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
    version = [] if pin.digest else [f"--version={pin.version}"]
    settings = [] if values is None else [f"--values={values}"]
    if pin.plain_http:
        settings.append("--plain-http")
    command = ["upgrade", "--install", pin.name, pin.source, f"--namespace={namespace}", *version, *settings]
    (await helm(cluster, *command, "--wait", f"--timeout={timeout_s}s")).succeeded()
