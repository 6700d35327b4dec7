"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler, inside the holder."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from ci.node import kubeconfig, pki, process
from ci.node.holder import NODE_ADDRESS, SERVICE_RANGE
from ci.node.kubectl import Kubectl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ci.node.layout import Layout
    from ci.node.pki import Authority, KeyPair
    from ci.node.process import Process

API_SERVER = "https://127.0.0.1:6443"
POD_RANGE = "10.244.0.0/16"
_ETCD = "http://127.0.0.1:2379"
_ETCD_PEER = "http://127.0.0.1:2380"
_FIRST_SERVICE_ADDRESS = "10.96.0.1"  # the `kubernetes` Service


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running Kubernetes API with its controllers.

    Attributes:
        kubeconfig: the administrator's.
        authority: signs further certificates, such as kubelet's.
        programs: the folder of the Kubernetes programs, kubectl among them.
        processes: what runs, in the order of its start.
    """

    kubeconfig: Path
    authority: Authority
    programs: Path
    processes: tuple[Process, ...]

    @property
    def kubectl(self) -> Kubectl:
        """The kubectl of the same version, as administrator."""
        return Kubectl(self.programs / "kubectl", self.kubeconfig)

    async def stop(self) -> None:
        """End the programs, the last one first."""
        for running in reversed(self.processes):
            await running.stop()


async def start(layout: Layout, programs: Path, names: tuple[str, ...] = ()) -> ControlPlane:
    """Start the control plane with an empty store.

    Args:
        layout: the node's folders.
        programs: the folder that `ci.node.programs.build(KUBERNETES, …)` returned.
        names: names and addresses besides its own under which the API is reached.

    Raises:
        ClusterError: a program died or was not ready in time.
    """
    authority = pki.create_authority(layout.run / "pki")
    admin = authority.issue("admin", "servepath-admin", "system:masters")
    kubeconfig.write(layout.kubeconfig, API_SERVER, authority, admin)
    etcd = await _etcd(layout)
    account_key = pki.service_account_key(authority.folder)
    tls = _client_context(authority, admin)
    hosts = ("localhost", "kubernetes.default.svc", "127.0.0.1", NODE_ADDRESS, _FIRST_SERVICE_ADDRESS, *names)
    serving = authority.issue("kube-apiserver", "kube-apiserver", hosts=hosts)
    api = await _api_server(layout, programs, authority, serving, account_key, tls)
    started: dict[str, Process] = {}

    async def controller_manager() -> None:
        started["manager"] = await _controller_manager(layout, programs, authority, account_key)

    async def scheduler() -> None:
        started["scheduler"] = await _scheduler(layout, programs, authority)

    async with anyio.create_task_group() as group:
        group.start_soon(controller_manager)
        group.start_soon(scheduler)
    return ControlPlane(layout.kubeconfig, authority, programs, (etcd, api, started["manager"], started["scheduler"]))


def flags(values: Mapping[str, object]) -> list[str]:
    """`{"bind-address": "::"}` as `["--bind-address=::"]`."""
    return [f"--{name}={value}" for name, value in values.items()]


async def _etcd(layout: Layout) -> Process:
    options = {
        "name": "node",
        "data-dir": "/run/servepath/etcd",  # in memory: a run starts from nothing, and need not wait for a disk
        "listen-client-urls": _ETCD,
        "advertise-client-urls": _ETCD,
        "listen-peer-urls": _ETCD_PEER,
        "initial-advertise-peer-urls": _ETCD_PEER,
        "initial-cluster": f"node={_ETCD_PEER}",
    }
    return await process.start(
        "etcd", ["etcd", *flags(options)], logs=layout.logs, ready=process.answers(f"{_ETCD}/health")
    )


async def _api_server(  # noqa: PLR0913, PLR0917 - its certificate, its clients' and its keys
    layout: Layout,
    programs: Path,
    authority: Authority,
    serving: KeyPair,
    account_key: Path,
    tls: ssl.SSLContext,
) -> Process:
    kubelet_client = authority.issue("kube-apiserver-kubelet", "kube-apiserver-kubelet", "system:masters")
    options = {
        "etcd-servers": _ETCD,
        "bind-address": "0.0.0.0",  # noqa: S104 - of the holder's own network
        "secure-port": 6443,
        "advertise-address": NODE_ADDRESS,
        "service-cluster-ip-range": SERVICE_RANGE,
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "client-ca-file": authority.pair.certificate,
        "tls-cert-file": serving.certificate,
        "tls-private-key-file": serving.key,
        "kubelet-certificate-authority": authority.pair.certificate,
        "kubelet-client-certificate": kubelet_client.certificate,
        "kubelet-client-key": kubelet_client.key,
        # There is no DNS for the node's name, so logs and exec go to its address.
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": account_key,
        "service-account-signing-key-file": account_key,
        "endpoint-reconciler-type": "lease",
    }
    return await process.start(
        "kube-apiserver",
        [str(programs / "kube-apiserver"), *flags(options)],
        logs=layout.logs,
        ready=process.answers(f"{API_SERVER}/readyz", tls),
        timeout_s=120,
    )


async def _controller_manager(layout: Layout, programs: Path, authority: Authority, account_key: Path) -> Process:
    config = _component_kubeconfig(layout, authority, "kube-controller-manager")
    options = {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "use-service-account-credentials": "true",
        "service-account-private-key-file": account_key,
        "root-ca-file": authority.pair.certificate,
        "cluster-signing-cert-file": authority.pair.certificate,
        "cluster-signing-key-file": authority.pair.key,
        "cluster-cidr": POD_RANGE,
        "allocate-node-cidrs": "false",
    }
    return await process.start(
        "kube-controller-manager",
        [str(programs / "kube-controller-manager"), *flags(options)],
        logs=layout.logs,
        ready=process.answers("https://127.0.0.1:10257/healthz"),
    )


async def _scheduler(layout: Layout, programs: Path, authority: Authority) -> Process:
    config = _component_kubeconfig(layout, authority, "kube-scheduler")
    options = {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
    }
    return await process.start(
        "kube-scheduler",
        [str(programs / "kube-scheduler"), *flags(options)],
        logs=layout.logs,
        ready=process.answers("https://127.0.0.1:10259/healthz"),
    )


def _component_kubeconfig(layout: Layout, authority: Authority, name: str) -> Path:
    client = authority.issue(name, f"system:{name}")
    return kubeconfig.write(layout.run / f"{name}.kubeconfig", API_SERVER, authority, client)


def _client_context(authority: Authority, client: KeyPair) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.pair.certificate))
    context.load_cert_chain(client.certificate, client.key)
    return context
