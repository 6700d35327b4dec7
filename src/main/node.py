"""A one-node Kubernetes cluster as a Dagger service: k3s, and the registry it pulls from."""

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
KUBECONFIGS = "/var/servepath/kubeconfigs"
READY_KUBECONFIG = "/var/servepath/ready.yaml"
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


def k3s(run_id: str, registry_service: dagger.Service, mirror: str) -> dagger.Service:
    """Give a k3s server.

    The cluster is new in each run; images stay in a cache volume that one cluster at a time may use, and that is a
    real file system, so overlay works. The kubeconfig has a name of its own in each run: a stale one is never read.

    Args:
        run_id: tells this run's service from any other's.
        registry_service: the registry that containerd reaches over plain HTTP.
        mirror: the registry that every other image comes from; upstream when empty.
    """
    return (
        _k3s_container(mirror)
        .with_mounted_cache(
            "/var/lib/rancher/k3s", dag.cache_volume("servepath-k3s"), sharing=dagger.CacheSharingMode.LOCKED
        )
        .with_mounted_temp("/var/lib/kubelet")
        .with_mounted_temp("/var/lib/cni")
        .with_mounted_temp("/var/log")
        .with_new_file("/etc/rancher/k3s/registries.yaml", registries(mirror))
        .with_service_binding(REGISTRY_HOST, registry_service)
        .with_env_variable("SERVEPATH_RUN", run_id)
        .with_entrypoint(["sh", f"{SCRIPTS}/k3s-entrypoint.sh"])
        .with_exposed_port(API_PORT)
        .with_exposed_port(GATEWAY_PORT, experimental_skip_healthcheck=True)
        .as_service(args=[_kubeconfig_path(run_id)], use_entrypoint=True, insecure_root_capabilities=True)
    )


async def kubeconfig(run_id: str, server: dagger.Service, mirror: str) -> dagger.Secret:
    """Wait until the API of a k3s service answers `/readyz`, and give its kubeconfig for use beside the service.

    Raises:
        dagger.ExecError: the API did not answer in 300 s.
    """
    text = await (
        _k3s_container(mirror)
        .with_service_binding("k3s", server)
        .with_env_variable("SERVEPATH_RUN", run_id)
        .with_exec(["sh", f"{SCRIPTS}/k3s-ready.sh", _kubeconfig_path(run_id), str(READY_TIMEOUT_S), READY_KUBECONFIG])
        .file(READY_KUBECONFIG)
        .contents()
    )
    return dag.set_secret(f"servepath-kubeconfig-{run_id}", text)


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


def _k3s_container(mirror: str) -> dagger.Container:
    scripts = dag.current_module().source().directory("src/main").filter(include=["*.sh"])
    return (
        dag.container()
        .from_(image("k3s", mirror))
        .with_directory(SCRIPTS, scripts)
        .with_mounted_cache(KUBECONFIGS, dag.cache_volume("servepath-kubeconfigs"))
    )


def _kubeconfig_path(run_id: str) -> str:
    return f"{KUBECONFIGS}/{run_id}.yaml"
