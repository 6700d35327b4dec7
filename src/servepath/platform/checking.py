"""Whether a cluster's platform is what both serving paths need: read, never changed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightkube.codecs import from_dict
from lightkube.core.exceptions import ApiError
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.core_v1 import ConfigMap

from servepath.cluster import objects
from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.wait import conditions
from servepath.errors import ClusterError
from servepath.evidence import CheckResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

GATEWAY_API_CRDS = {name: f"{name}.gateway.networking.k8s.io" for name in ("gatewayclasses", "gateways", "httproutes")}
KSERVE_CRDS = {"inferenceservices": "inferenceservices.serving.kserve.io"}
KSERVE_NAMESPACE = "kserve"
KSERVE_CONFIG = "inferenceservice-config"
# `RawDeployment` is the older name of `Standard` and means the same (KServe v0.19.0, pkg/constants).
STANDARD_MODES = ("Standard", "RawDeployment")

_BUNDLE_VERSION = "gateway.networking.k8s.io/bundle-version"
_NOT_FOUND = 404

Finding = tuple[bool, str]


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    expected: str
    next_command: str
    look: Callable[[AsyncClient, Cluster], Awaitable[Finding]]


async def check(cluster: Cluster) -> tuple[CheckResult, ...]:
    """Check the platform.

    Returns:
        One result for each thing that both paths need, in the order in which the platform is built: the first failure
        explains the later ones.

    Raises:
        ClusterError: the kubeconfig cannot be used or the API server cannot be reached.
    """
    async with kubernetes(cluster) as client:
        return tuple([await _run(one, client, cluster) for one in _checks(cluster)])


def _checks(cluster: Cluster) -> tuple[_Check, ...]:
    kubectl = f"kubectl --kubeconfig {cluster.kubeconfig}" + (
        f" --context {cluster.context}" if cluster.context else ""
    )
    gateway = f"-n {cluster.gateway_namespace} describe gateway {cluster.gateway_name}"
    config = f"{kubectl} -n {KSERVE_NAMESPACE} get configmap {KSERVE_CONFIG} -o yaml"
    gateway_name = f"{cluster.gateway_namespace}/{cluster.gateway_name}"
    return (
        _Check("gateway_api_is_served", "the Gateway API's v1 kinds", f"{kubectl} get crds", _gateway_api),
        _Check("kserve_is_served", "InferenceService v1beta1", f"{kubectl} get crds", _kserve_crds),
        _Check("kserve_mode_is_standard", " or ".join(STANDARD_MODES), config, _mode),
        _Check("kserve_routes_with_the_gateway_api", f"enableGatewayApi, to {gateway_name}", config, _routing),
        _Check("kserve_runs_modelcars", "enableModelcar: true", config, _modelcars),
        _Check(
            "gateway_class_is_accepted",
            f"GatewayClass {cluster.gateway_class} Accepted",
            f"{kubectl} describe gatewayclass {cluster.gateway_class}",
            _gateway_class,
        ),
        _Check(
            "gateway_is_programmed",
            f"Gateway {gateway_name} of class {cluster.gateway_class} Programmed with an address",
            f"{kubectl} {gateway}",
            _gateway,
        ),
        _Check(
            "kserve_webhooks_answer",
            "KServe's validating webhook refuses a bad InferenceService",
            f"{kubectl} -n {KSERVE_NAMESPACE} get pods,endpointslices",
            _webhooks,
        ),
    )


async def _run(one: _Check, client: AsyncClient, cluster: Cluster) -> CheckResult:
    start = time.monotonic()
    try:
        with errors_of(one.name):
            passed, seen = await one.look(client, cluster)
    except ClusterError as error:
        passed, seen = False, str(error)
    verdict = Verdict.PASS if passed else Verdict.FAIL
    next_command = "" if passed else one.next_command
    return CheckResult(one.name, "cluster", verdict, one.expected, seen, time.monotonic() - start, next_command)


async def _gateway_api(client: AsyncClient, _: Cluster) -> Finding:
    return await _served(client, tuple(GATEWAY_API_CRDS.values()), "v1")


async def _kserve_crds(client: AsyncClient, _: Cluster) -> Finding:
    return await _served(client, tuple(KSERVE_CRDS.values()), "v1beta1")


async def _served(client: AsyncClient, names: tuple[str, ...], version: str) -> Finding:
    absent, seen = [], []
    for name in names:
        try:
            crd = (await client.get(CustomResourceDefinition, name)).to_dict()
        except ApiError as error:
            if error.status.code != _NOT_FOUND:
                raise
            absent.append(f"{name} is absent")
            continue
        bundle = (crd["metadata"].get("annotations") or {}).get(_BUNDLE_VERSION)
        seen.append(f"{name} {version}" + (f" of {bundle}" if bundle else ""))
        if version not in [one["name"] for one in crd["spec"]["versions"] if one.get("served")]:
            absent.append(f"{name} does not serve {version}")
        elif conditions(crd).get("Established") is None or conditions(crd)["Established"].status != "True":
            absent.append(f"{name} is not established")
    return not absent, "; ".join(absent or seen)


async def _mode(client: AsyncClient, _: Cluster) -> Finding:
    deploy = await _kserve_settings(client, "deploy")
    mode = deploy.get("defaultDeploymentMode")
    return mode in STANDARD_MODES, f"defaultDeploymentMode: {mode}"


async def _routing(client: AsyncClient, cluster: Cluster) -> Finding:
    ingress = await _kserve_settings(client, "ingress")
    enabled, gateway = ingress.get("enableGatewayApi"), ingress.get("kserveIngressGateway")
    wanted = f"{cluster.gateway_namespace}/{cluster.gateway_name}"
    seen = f"enableGatewayApi: {json.dumps(enabled)}, gateway {gateway}, domain {ingress.get('ingressDomain')}"
    return enabled is True and gateway == wanted, seen


async def _modelcars(client: AsyncClient, _: Cluster) -> Finding:
    storage = await _kserve_settings(client, "storageInitializer")
    enabled = storage.get("enableModelcar")
    return enabled is True, f"enableModelcar: {json.dumps(enabled)}"


async def _kserve_settings(client: AsyncClient, key: str) -> Mapping[str, Any]:
    config = await client.get(ConfigMap, KSERVE_CONFIG, namespace=KSERVE_NAMESPACE)
    try:
        settings: Mapping[str, Any] = json.loads((config.data or {})[key])
    except (KeyError, json.JSONDecodeError) as error:
        raise ClusterError(f"no usable {key!r} in it: {error}", where=f"ConfigMap {KSERVE_CONFIG}") from error
    return settings


async def _gateway_class(client: AsyncClient, cluster: Cluster) -> Finding:
    found = await objects.read(client, "GatewayClass", cluster.gateway_class)
    if found is None:
        return False, "no such GatewayClass"
    return _condition(found, "Accepted")


async def _gateway(client: AsyncClient, cluster: Cluster) -> Finding:
    found = await objects.read(client, "Gateway", cluster.gateway_name, cluster.gateway_namespace)
    if found is None:
        return False, "no such Gateway"
    if found["spec"]["gatewayClassName"] != cluster.gateway_class:
        return False, f"its class is {found['spec']['gatewayClassName']}"
    addresses = [entry["value"] for entry in (found.get("status") or {}).get("addresses") or []]
    programmed, seen = _condition(found, "Programmed")
    return programmed and bool(addresses), f"{seen}, addresses: {', '.join(addresses) or 'none'}"


def _condition(obj: Mapping[str, Any], wanted: str) -> Finding:
    found = conditions(obj).get(wanted)
    if found is None:
        return False, f"{wanted} is not said"
    detail = "" if found.status == "True" else f" {found.reason}: {found.message}"
    return found.status == "True", f"{wanted}={found.status}{detail}"


async def _webhooks(client: AsyncClient, _: Cluster) -> Finding:
    """Ask for what the API server itself would take and the webhook must refuse: a name with a dot in it.

    An acceptable InferenceService would prove less: where no webhook is configured it is accepted as well.
    """
    try:
        await client.create(from_dict(_refused()), dry_run=True)
    except ApiError as error:
        message = str(error.status.message)
        return "denied the request" in message, message
    return False, "a bad InferenceService was accepted: no webhook is configured"


def _refused() -> dict[str, Any]:
    container = {"name": "kserve-container", "image": "registry.invalid/none"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "servepath.probe", "namespace": KSERVE_NAMESPACE},
        "spec": {"predictor": {"containers": [container]}},
    }
