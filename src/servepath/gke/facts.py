"""The Kubernetes Engine API's answer -> `GkeFacts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.errors import ClusterError
from servepath.gke.model import GkeFacts, GkeTarget, NodePool

if TYPE_CHECKING:
    from collections.abc import Sequence

_USABLE = ("RUNNING", "RECONCILING")
_EFFECTS = {"NO_SCHEDULE": "NoSchedule", "PREFER_NO_SCHEDULE": "PreferNoSchedule", "NO_EXECUTE": "NoExecute"}


def facts_of(answer: Any, target: GkeTarget, endpoint: str = "") -> GkeFacts:
    """Read `google.cloud.container_v1.types.Cluster`.

    Args:
        answer: what the API answered.
        target: which cluster was asked for.
        endpoint: `ip` or `dns`; empty for the address unless it is disabled.

    Raises:
        ClusterError: the cluster does not run, or has no such endpoint.
    """
    if answer.status.name not in _USABLE:
        raise ClusterError(
            f"the cluster is {answer.status.name}" + (f": {answer.status_message}" if answer.status_message else ""),
            where=target.resource,
            expected=" or ".join(_USABLE),
            next_command=f"gcloud container clusters describe {target.name} {target.gcloud}",
        )
    server, authority = _server(answer, target, endpoint)
    limits = answer.autoscaling.resource_limits if answer.autoscaling.enable_node_autoprovisioning else ()
    return GkeFacts(
        target=target,
        server=server,
        certificate_authority=authority,
        version=answer.current_master_version,
        is_autopilot=answer.autopilot.enabled,
        pools=tuple(_pool(pool, answer.locations) for pool in answer.node_pools),
        provisioned={
            limit.resource_type: limit.maximum for limit in limits if limit.resource_type.startswith("nvidia-")
        },
    )


def _server(answer: Any, target: GkeTarget, endpoint: str) -> tuple[str, str]:
    """Give the API server's URL and its certificate authority; the DNS endpoint has a certificate that all trust."""
    endpoints = answer.control_plane_endpoints_config
    dns = endpoints.dns_endpoint_config
    is_disabled = "ip_endpoints_config" in endpoints and not endpoints.ip_endpoints_config.enabled
    if endpoint != "dns" and answer.endpoint and not is_disabled:
        return f"https://{answer.endpoint}", answer.master_auth.cluster_ca_certificate
    if endpoint != "ip" and dns.endpoint and dns.allow_external_traffic:
        return f"https://{dns.endpoint}", ""
    raise ClusterError(
        f"the cluster has no {endpoint.upper() or 'reachable'} endpoint",
        where=target.resource,
        expected="an address, or a DNS endpoint that allows external traffic",
        next_command=f"gcloud container clusters update {target.name} {target.gcloud} --enable-dns-access",
    )


def _pool(pool: Any, locations: Sequence[str]) -> NodePool:
    config, scaling = pool.config, pool.autoscaling
    accelerator = config.accelerators[0] if config.accelerators else None
    zones = len(pool.locations or locations) or 1
    # A pool has limits of its own or limits per zone, never both: docs/how-to/cluster-autoscaler of GKE.
    fewest = scaling.total_min_node_count or scaling.min_node_count * zones
    most = scaling.total_max_node_count or scaling.max_node_count * zones
    return NodePool(
        name=pool.name,
        machine_type=config.machine_type,
        accelerator_type=accelerator.accelerator_type if accelerator else "",
        accelerators=int(accelerator.accelerator_count) if accelerator else 0,
        is_autoscaled=scaling.enabled,
        min_nodes=fewest if scaling.enabled else 0,
        max_nodes=most if scaling.enabled else 0,
        is_spot=config.spot,
        is_preemptible=config.preemptible,
        labels=dict(config.labels),
        streams_images=config.gcfs_config.enabled,
        preloads_images=bool(config.secondary_boot_disks),
        disk_size_bytes=(config.disk_size_gb or config.boot_disk.size_gb) * 10**9,
        taints=tuple(f"{taint.key}={taint.value}:{_EFFECTS.get(taint.effect.name, '')}" for taint in config.taints),
        oauth_scopes=tuple(config.oauth_scopes),
        service_account=config.service_account or "default",
    )
