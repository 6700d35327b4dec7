"""Who reaches an engine and what it reaches: what the NetworkPolicies say, and whether anything enforces them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightkube.resources.networking_v1 import NetworkPolicy

from servepath.checks import pods
from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import exec_line, execute, kubectl, read_pod
from servepath.evidence import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servepath.cluster.objects import Json
    from servepath.serving.model import Endpoint

DIRECTIONS = ("Ingress", "Egress")
SIDECAR = "modelcar"
EVERYWHERE = ("0.0.0.0/0", "::/0")

NO_NC, NO_ENGINE, GOES_OUT = 3, 4, 5
# The API server is the one address of every cluster that certainly listens: only a policy keeps a pod from it.
PROBE = f"""
command -v nc > /dev/null || exit {NO_NC}
nc -w 5 127.0.0.1 %d < /dev/null > /dev/null 2>&1 || exit {NO_ENGINE}
api="${{KUBERNETES_SERVICE_HOST:?}} ${{KUBERNETES_SERVICE_PORT:?}}"
nc -w 5 $api < /dev/null > /dev/null 2>&1 && exit {GOES_OUT}
exit 0
"""


async def network_policy_isolates_the_engine(tools: Tools, endpoint: Endpoint) -> Finding:
    """NetworkPolicies select the pod for both directions, admit nobody at large, and let nothing out.

    Why: an engine's port, its /metrics too, would be open to every pod of the cluster, past the gateway. Policies add
    up, so one that admits everybody undoes the others. Who else was admitted by a policy of its own is in `seen`.
    """
    pod = await read_pod(tools, endpoint)
    listed = tools.kube.list(NetworkPolicy, namespace=endpoint.namespace)
    policies = [policy async for one in listed if selects((policy := one.to_dict())["spec"]["podSelector"], pod)]
    look = kubectl(tools.context.cluster, "-n", endpoint.namespace, "get", "networkpolicies", "-o", "yaml")
    names = ", ".join(policy["metadata"]["name"] for policy in policies)
    admitted = "; ".join(peer_in_words(peer) for peer in _peers(policies))
    return finding(judge_policies(policies), f"{names} admit {admitted or 'nobody'}; nothing goes out", look)


def judge_policies(policies: list[Json]) -> list[str]:
    """Give what the policies that select a pod leave open."""
    kinds = {kind for policy in policies for kind in policy["spec"].get("policyTypes") or ("Ingress",)}
    problems = [f"no NetworkPolicy selects the pod for {kind}" for kind in DIRECTIONS if kind not in kinds]
    for policy in policies:
        name = policy["metadata"]["name"]
        problems += [f"{name} lets out to {rule or 'everywhere'}" for rule in policy["spec"].get("egress") or ()]
        for rule in policy["spec"].get("ingress") or ():
            if not rule.get("from"):
                problems.append(f"{name} admits everybody")
            problems += [f"{name} admits {peer_in_words(peer)}" for peer in rule.get("from") or () if is_at_large(peer)]
    return problems


def is_at_large(peer: Mapping[str, Any]) -> bool:
    """Tell whether a peer of a policy is everybody: any pod of any namespace, or any address."""
    if peer.get("ipBlock"):
        return peer["ipBlock"]["cidr"] in EVERYWHERE
    return "namespaceSelector" in peer and not peer["namespaceSelector"] and not peer.get("podSelector")


def peer_in_words(peer: Mapping[str, Any]) -> str:
    """Say who a policy admits, as short as its selectors are."""
    if peer.get("ipBlock"):
        return f"addresses {peer['ipBlock']['cidr']}"
    chosen = _selector_in_words(peer.get("podSelector") or {})
    if "namespaceSelector" not in peer:
        return f"pods {chosen} of its own namespace"
    return f"pods {chosen} of namespaces {_selector_in_words(peer['namespaceSelector'])}"


def selects(selector: Mapping[str, Any], obj: Mapping[str, Any]) -> bool:
    """Tell whether a Kubernetes label selector selects an object; an empty one selects every object."""
    labels = obj["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    return (labels.get(key) in values) is (operator == "In")


def _selector_in_words(selector: Mapping[str, Any]) -> str:
    words = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    words += [
        f"{one['key']} {one['operator']} {','.join(one.get('values') or ())}".rstrip()
        for one in selector.get("matchExpressions") or ()
    ]
    return "{" + ", ".join(words) + "}"


def _peers(policies: list[Json]) -> list[Json]:
    return [
        peer for policy in policies for rule in policy["spec"].get("ingress") or () for peer in rule.get("from", ())
    ]


async def network_policy_is_enforced(tools: Tools, endpoint: Endpoint) -> Finding:
    """From inside the engine's pod, its own port answers and the API server's cannot be reached.

    Why: the API server takes every NetworkPolicy, and without a network plugin that enforces them nothing changes.
    Skipped where the connection is made, since the cluster then enforces none, and where the modelcar has no `nc`.
    """
    pod = await read_pod(tools, endpoint)
    script = PROBE % engine_port(pod)
    exit_code, stderr = await execute(tools, pod, SIDECAR, script)
    return judge_probe(exit_code, stderr, exec_line(tools, pod, SIDECAR, script))


def judge_probe(exit_code: int, stderr: str, look: str) -> Finding:
    """Judge how the probe in the pod ended."""
    if exit_code == 0:
        return Finding(Verdict.PASS, "the engine's own port answers in its pod, the API server's does not")
    if exit_code == NO_NC:
        return Finding(Verdict.SKIP, "the modelcar has no nc to try a connection with")
    if exit_code == GOES_OUT:
        return Finding(
            Verdict.SKIP,
            "the pod reached the API server: nothing in this cluster enforces NetworkPolicy, which takes a network "
            "plugin such as Cilium, Calico or kube-router's (k3s has it)",
        )
    if exit_code == NO_ENGINE:
        return finding(["the engine's own port does not answer in its own pod"], "", look)
    return finding([f"the probe ended with {exit_code} {stderr.strip()}".rstrip()], "", look)


def engine_port(pod: Json) -> int:
    """Give the port that the engine's container declares; that of the manifests where it declares none."""
    server = pods.container(pod, "kserve-container") or {}
    return next((int(one["containerPort"]) for one in server.get("ports") or ()), 8080)
