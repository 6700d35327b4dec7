"""A one-node Kubernetes cluster as a Dagger service: k3s, and the registry it pulls from.

Whoever uses the cluster has a bearer token that is made for one run. It is a Secret wherever it goes; the keys that k3s
makes for itself stay in memory. So no cache and no log has a credential of the cluster.
"""

import base64
import json
from typing import Any

import dagger
from dagger import dag

from main.images import image
from servepath.platform.mirror import parse_mirror

API_PORT = 6443
GATEWAY_PORT = 80
REGISTRY_PORT = 5000
REGISTRY_HOST = "registry.localhost"
"""Ends in `.localhost`, so that clients speak plain HTTP to it: it is in this session's network and nowhere else."""
REGISTRY = f"{REGISTRY_HOST}:{REGISTRY_PORT}"
GATEWAY_URL = f"http://k3s:{GATEWAY_PORT}"
READY_TIMEOUT_S = 300
STATE = "/var/lib/rancher/k3s"
IMAGES = "/var/lib/servepath/containerd"
"""Not below STATE: the engine mounts what is in memory last, and so over any volume that is deeper."""
TOKEN = "/etc/servepath/token"  # noqa: S105 - where it is mounted
CERTIFICATES = "/var/servepath/certificates"
READY_CERTIFICATE = "/var/servepath/ready.crt"
SCRIPTS = "/usr/local/lib/servepath"

ALL_REGISTRIES = "*"


def registry(mirror: str) -> dagger.Service:
    """Give a registry whose blobs stay in a cache volume: a model is sent once, not once a run.

    Args:
        mirror: the registry that its image comes from; upstream when empty.
    """
    return (
        dag.container()
        .from_(image("registry", mirror))
        .with_mounted_cache("/var/lib/registry", dag.cache_volume("servepath-registry"))
        .with_exposed_port(REGISTRY_PORT)
        .as_service(use_entrypoint=True)
    )


def k3s(run_id: str, token: dagger.Secret, registry_service: dagger.Service, mirror: str) -> dagger.Service:
    """Give a k3s server.

    The cluster is new in each run. Images stay in a cache volume that one cluster at a time may use, and that is a real
    file system, so overlay works. What has keys in it is in memory.

    Args:
        run_id: tells this run's service from any other's.
        token: the administrator's bearer token.
        registry_service: the registry that containerd reaches over plain HTTP.
        mirror: the registry that every other image comes from; upstream when empty.
    """
    locked = dagger.CacheSharingMode.LOCKED
    return (
        _k3s_container(run_id, token, mirror)
        .with_mounted_cache(STATE, dag.cache_volume("servepath-k3s"), sharing=locked)
        .with_mounted_temp(f"{STATE}/server")
        .with_mounted_temp(f"{STATE}/agent")
        .with_mounted_cache(IMAGES, dag.cache_volume("servepath-k3s-containerd"), sharing=locked)
        .with_mounted_temp("/run")
        .with_mounted_temp("/var/lib/kubelet")
        .with_mounted_temp("/var/lib/cni")
        .with_mounted_temp("/var/log")
        .with_new_file("/etc/rancher/k3s/registries.yaml", registries(mirror))
        .with_service_binding(REGISTRY_HOST, registry_service)
        .with_entrypoint(["sh", f"{SCRIPTS}/k3s-entrypoint.sh"])
        .with_exposed_port(API_PORT)
        .with_exposed_port(GATEWAY_PORT, experimental_skip_healthcheck=True)
        .as_service(args=[_certificate(run_id), TOKEN, IMAGES], use_entrypoint=True, insecure_root_capabilities=True)
    )


async def certificate(run_id: str, token: dagger.Secret, server: dagger.Service, mirror: str) -> str:
    """Wait until the API of a k3s service answers `/readyz`, and give the certificate of its authority, as PEM.

    Raises:
        dagger.ExecError: the API did not answer in 300 s.
    """
    command = ["sh", f"{SCRIPTS}/k3s-ready.sh", _certificate(run_id), TOKEN, str(READY_TIMEOUT_S)]
    container = _k3s_container(run_id, token, mirror).with_service_binding("k3s", server)
    return await container.with_exec(command, redirect_stdout=READY_CERTIFICATE).file(READY_CERTIFICATE).contents()


def kubeconfig(token: str, authority: str) -> str:
    """Give the kubeconfig of a k3s service for use beside it.

    Args:
        token: the administrator's bearer token.
        authority: the certificate that signs the API server's, as PEM.
    """
    signer = base64.b64encode(authority.encode()).decode()
    name = "servepath"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [
            {"name": name, "cluster": {"server": f"https://k3s:{API_PORT}", "certificate-authority-data": signer}}
        ],
        "users": [{"name": name, "user": {"token": token}}],
    }
    return json.dumps(document, indent=2)  # JSON is YAML too


def registries(mirror: str) -> str:
    """Give k3s's `registries.yaml`: our own registry over plain HTTP, and a mirror for all others if there is one.

    Format: https://docs.k3s.io/installation/private-registry
    """
    mirrors: dict[str, Any] = {REGISTRY: {"endpoint": [f"http://{REGISTRY}"]}}
    if mirror:
        place = parse_mirror(mirror)
        rewrite = {"rewrite": {"^(.*)$": place.repository("$1")}} if place.prefix else {}
        mirrors[ALL_REGISTRIES] = {"endpoint": [place.url], **rewrite}
    return json.dumps({"mirrors": mirrors}, indent=2)  # JSON is YAML too


def _k3s_container(run_id: str, token: dagger.Secret, mirror: str) -> dagger.Container:
    scripts = dag.current_module().source().directory("src/main").filter(include=["*.sh"])
    return (
        dag.container()
        .from_(image("k3s", mirror))
        .with_directory(SCRIPTS, scripts)
        .with_mounted_cache(CERTIFICATES, dag.cache_volume("servepath-certificates"))
        .with_mounted_secret(TOKEN, token)
        .with_env_variable("SERVEPATH_RUN", run_id)
    )


def _certificate(run_id: str) -> str:
    return f"{CERTIFICATES}/{run_id}.crt"
