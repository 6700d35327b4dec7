"""kube-router's network policy controller, which k3s embeds too: it makes the node enforce NetworkPolicy.

The node runs without it: only the tests of policies start it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ci.node import kubeconfig, packages, process, programs
from ci.node.control_plane import API_SERVER, flags
from ci.node.holder import SERVICE_RANGE
from ci.node.programs import HERE, GoProgram
from ci.node.worker import NODE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from ci.node.process import Process

CONTROLLER = GoProgram(
    name="kube-router",
    module=HERE / "network-policy",
    package="github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
)
PACKAGES = {"ipset": "/usr/sbin/ipset"}
_HEALTH_PORT = 20244


async def prepare(cache: Path) -> Path:
    """Install what it calls, and give its folder, building it first if it is missing.

    Raises:
        ClusterError: apt or Go failed.
    """
    await packages.install(PACKAGES)
    return await programs.build(CONTROLLER, cache)


async def start(layout: Layout, plane: ControlPlane) -> Process:
    """Start it inside the holder, and return once it is healthy: it writes the node's rules a moment later.

    Raises:
        ClusterError: it died or was not ready in time.
    """
    client = plane.authority.issue("kube-router", "system:kube-router", "system:masters")
    options = {
        "run-router": "false",
        "run-service-proxy": "false",
        "run-firewall": "true",
        "kubeconfig": kubeconfig.write(layout.run / "kube-router.kubeconfig", API_SERVER, plane.authority, client),
        "hostname-override": NODE_NAME,
        "service-cluster-ip-range": SERVICE_RANGE,
        "health-port": _HEALTH_PORT,
    }
    command = [str(programs.target(CONTROLLER, layout.cache) / CONTROLLER.name), *flags(options)]
    healthy = process.answers(f"http://127.0.0.1:{_HEALTH_PORT}/healthz")
    return await process.start("kube-router", command, logs=layout.logs, ready=healthy)
