"""What servepath knows of a cluster: three addresses; and how long one that changes a release locks it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes cluster, a registry that it pulls from, and a gateway in front of it.

    Attributes:
        kubeconfig: a kubeconfig file; the user's current context is never changed.
        context: the context in it, empty for its current one.
        registry: `host[:port]` that both servepath and the nodes reach.
        gateway_class: the GatewayClass in use; `agentgateway` is the product's default.
        gateway_url: base URL of the gateway, such as `http://172.30.0.2:80`; hosts are sent as Host header.
        gateway_namespace: namespace of the Gateway object, `kserve`.
        gateway_name: name of the Gateway object, `kserve-ingress-gateway`.
    """

    kubeconfig: Path
    registry: str
    gateway_url: str
    gateway_class: str = "agentgateway"
    gateway_namespace: str = "kserve"
    gateway_name: str = "kserve-ingress-gateway"
    context: str = ""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a Lease is held and waited for.

    Attributes:
        duration_s: a holder that has not renewed it for so long is gone.
        renew_s: how often the holder renews it.
        wait_s: how long somebody else's is waited for.
        poll_s: how often somebody else's is looked at.
    """

    duration_s: int = 30
    renew_s: float = 8.0
    wait_s: float = 45.0
    poll_s: float = 1.0
