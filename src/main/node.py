"""A one-node Kubernetes cluster as a Dagger service: k3s, and the registry it pulls from."""

import dagger
from dagger import dag

from main.images import image

API_PORT = 6443
GATEWAY_PORT = 80
REGISTRY_PORT = 5000
REGISTRY_HOST = "registry.localhost"
"""Ends in `.localhost`, so that clients speak plain HTTP to it: it is in this session's network and nowhere else."""
REGISTRY = f"{REGISTRY_HOST}:{REGISTRY_PORT}"
GATEWAY_URL = f"http://k3s:{GATEWAY_PORT}"
READY_TIMEOUT_S = 180
KUBECONFIGS = "/var/servepath/kubeconfigs"
SCRIPTS = "/usr/local/lib/servepath"

REGISTRIES = f"""\
mirrors:
  "{REGISTRY}":
    endpoint:
      - "http://{REGISTRY}"
"""


def registry() -> dagger.Service:
    """Give a registry whose blobs stay in a cache volume: a model is sent once, not once a run."""
    return (
        dag.container()
        .from_(image("registry"))
        .with_mounted_cache("/var/lib/registry", dag.cache_volume("servepath-registry"))
        .with_exposed_port(REGISTRY_PORT)
        .as_service(use_entrypoint=True)
    )


def k3s(run_id: str, registry_service: dagger.Service) -> dagger.Service:
    """Give a k3s server.

    The cluster is new in each run; images stay in a cache volume that one cluster at a time may use, and that is a
    real file system, so overlay works. The kubeconfig has a name of its own in each run: a stale one is never read.

    Args:
        run_id: tells this run's service from any other's.
        registry_service: the registry that containerd reaches over plain HTTP.
    """
    return (
        _k3s_container()
        .with_mounted_cache(
            "/var/lib/rancher/k3s", dag.cache_volume("servepath-k3s"), sharing=dagger.CacheSharingMode.LOCKED
        )
        .with_mounted_temp("/var/lib/kubelet")
        .with_mounted_temp("/var/lib/cni")
        .with_mounted_temp("/var/log")
        .with_new_file("/etc/rancher/k3s/registries.yaml", REGISTRIES)
        .with_service_binding(REGISTRY_HOST, registry_service)
        .with_env_variable("SERVEPATH_RUN", run_id)
        .with_entrypoint(["sh", f"{SCRIPTS}/k3s-entrypoint.sh"])
        .with_exposed_port(API_PORT)
        .with_exposed_port(GATEWAY_PORT, experimental_skip_healthcheck=True)
        .as_service(args=[_kubeconfig_path(run_id)], use_entrypoint=True, insecure_root_capabilities=True)
    )


async def kubeconfig(run_id: str, server: dagger.Service) -> dagger.Secret:
    """Wait until the API of a k3s service answers `/readyz`, and give its kubeconfig for use beside the service.

    Raises:
        dagger.ExecError: the API did not answer in 180 s.
    """
    text = await (
        _k3s_container()
        .with_service_binding("k3s", server)
        .with_env_variable("SERVEPATH_RUN", run_id)
        .with_exec(["sh", f"{SCRIPTS}/k3s-ready.sh", _kubeconfig_path(run_id), str(READY_TIMEOUT_S)])
        .stdout()
    )
    return dag.set_secret(f"servepath-kubeconfig-{run_id}", text)


def _k3s_container() -> dagger.Container:
    scripts = dag.current_module().source().directory("src/main").filter(include=["*.sh"])
    return (
        dag.container()
        .from_(image("k3s"))
        .with_directory(SCRIPTS, scripts)
        .with_mounted_cache(KUBECONFIGS, dag.cache_volume("servepath-kubeconfigs"))
    )


def _kubeconfig_path(run_id: str) -> str:
    return f"{KUBECONFIGS}/{run_id}.yaml"
