"""containerd, kubelet and kube-proxy inside the holder: what makes a control plane a node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ci.node import containerd, kubeconfig, process
from ci.node.control_plane import API_SERVER, POD_RANGE, ControlPlane, flags
from ci.node.holder import NODE_ADDRESS

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.layout import Layout
    from ci.node.process import Process

NODE_NAME = "servepath"


@dataclass(frozen=True, slots=True)
class Worker:
    """A running node.

    Attributes:
        name: the Node object's name.
        address: its address inside the holder.
        processes: what runs, in the order of its start.
    """

    name: str
    address: str
    processes: tuple[Process, ...]


async def start(layout: Layout, plane: ControlPlane, runtime: Process) -> Worker:
    """Start kubelet and kube-proxy, and return once the node is Ready.

    Args:
        layout: the node's folders.
        plane: the control plane that it joins.
        runtime: containerd, running.

    Raises:
        ClusterError: a program died, or the node was not Ready in time.
    """
    agent = await _kubelet(layout, plane)
    proxy = await _kube_proxy(layout, plane)
    node = f"node/{NODE_NAME}"
    await plane.kubectl("wait", "--for=create", node, "--timeout=60s")
    await plane.kubectl("wait", "--for=condition=Ready", node, "--timeout=60s")
    return Worker(NODE_NAME, NODE_ADDRESS, (runtime, agent, proxy))


def write_cni(folder: Path) -> Path:
    """Give every pod its own routed link: all traffic to Services then passes the node's own tables."""
    folder.mkdir()
    config = {
        "cniVersion": "0.4.0",
        "name": "servepath",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/servepath/ipam",
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (folder / "10-servepath.conflist").write_text(json.dumps(config))
    return folder


async def _kubelet(layout: Layout, plane: ControlPlane) -> Process:
    client = plane.authority.issue("kubelet-client", f"system:node:{NODE_NAME}", "system:nodes")
    serving = plane.authority.issue("kubelet", NODE_NAME, hosts=(NODE_NAME, NODE_ADDRESS))
    config = layout.run / "kubelet.json"
    resolver = layout.run / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")  # there is no DNS in the node; an empty file means the machine's
    config.write_text(
        json.dumps(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "authentication": {
                    "anonymous": {"enabled": False},
                    "x509": {"clientCAFile": str(plane.authority.pair.certificate)},
                },
                "tlsCertFile": str(serving.certificate),
                "tlsPrivateKeyFile": str(serving.key),
                "containerRuntimeEndpoint": f"unix://{containerd.SOCKET}",
                "resolvConf": str(resolver),
                "volumePluginDir": str(layout.run / "volume-plugins"),
                **_kubelet_limits(layout),
            }
        )
    )
    options = {
        "config": config,
        "kubeconfig": kubeconfig.write(layout.run / "kubelet.kubeconfig", API_SERVER, plane.authority, client),
        "hostname-override": NODE_NAME,
        "node-ip": NODE_ADDRESS,
    }
    command = [str(plane.programs / "kubelet"), *flags(options)]
    healthy = process.answers("http://127.0.0.1:10248/healthz")
    return await process.start("kubelet", command, logs=layout.logs, ready=healthy)


def _kubelet_limits(layout: Layout) -> dict[str, Any]:
    return {
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,  # a negative one needs CAP_SYS_RESOURCE
        "maxOpenFiles": 20000,
        # Images are kept for the next run; a laptop's disk that is nearly full is not the node's to clean.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "shutdownGracePeriod": "0s",
    }


async def _kube_proxy(layout: Layout, plane: ControlPlane) -> Process:
    client = plane.authority.issue("kube-proxy", "system:kube-proxy")
    config = layout.run / "kube-proxy.json"
    access = kubeconfig.write(layout.run / "kube-proxy.kubeconfig", API_SERVER, plane.authority, client)
    config.write_text(
        json.dumps(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "clientConnection": {"kubeconfig": str(access)},
                "hostnameOverride": NODE_NAME,
                "clusterCIDR": POD_RANGE,
                "mode": "iptables",
                "healthzBindAddress": "127.0.0.1:10256",
                "metricsBindAddress": "127.0.0.1:10249",
                "iptables": {"minSyncPeriod": "0s"},
                # These are the machine's, not the node's: leave them alone.
                "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            }
        )
    )
    command = [str(plane.programs / "kube-proxy"), f"--config={config}"]
    healthy = process.answers("http://127.0.0.1:10249/healthz")
    return await process.start("kube-proxy", command, logs=layout.logs, ready=healthy)
