"""One way at least to break each check: the table that shows that every check fails when it should."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.unit.checks import objects
from tests.unit.checks.engine import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.checks.world import World

RAW_APP = "qwen-raw"
KSERVE_APP = "isvc.qwen-kserve-predictor"


@dataclass(frozen=True, slots=True)
class Broken:
    """A check, how its world is broken, and a part of what it must then have seen."""

    name: str
    subject: str
    damage: Callable[[World], object]
    seen: str

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}-{self.seen[:24]}"


def fault(*faults: Fault) -> Callable[[World], None]:
    """The raw path's engine has these faults."""

    def damage(world: World) -> None:
        world.raw = replace(world.raw, faults=frozenset(faults))

    return damage


def _kserve_open(world: World) -> None:
    world.kserve = replace(world.kserve, api_key="")


def pod(app: str, change: Callable[[dict[str, Any]], None]) -> Callable[[World], None]:
    """The pod is changed."""
    return lambda world: change(world.api.pods[app])


def container(app: str, index: int, **values: Any) -> Callable[[World], None]:
    """Fields of one of the pod's containers have other values."""
    return pod(app, lambda one: one["spec"]["containers"][index].update(values))


def spec(app: str, **values: Any) -> Callable[[World], None]:
    """Fields of the pod's spec have other values."""
    return pod(app, lambda one: one["spec"].update(values))


def status(app: str, kind: str, index: int, image_id: str) -> Callable[[World], None]:
    """A container runs another image than its spec names."""
    return pod(app, lambda one: one["status"][kind][index].update(imageID=image_id))


def security(app: str, **values: Any) -> Callable[[World], None]:
    """Fields of the first container's security context have other values."""
    return pod(app, lambda one: one["spec"]["containers"][0]["securityContext"].update(values))


def pod_security(app: str, **values: Any) -> Callable[[World], None]:
    """Fields of the pod's security context have other values."""
    return pod(app, lambda one: one["spec"]["securityContext"].update(values))


def _no_link(world: World) -> None:
    world.api.pods[KSERVE_APP]["spec"]["containers"][1]["args"] = ["sleep", "infinity"]


def _separate_mnt(world: World) -> None:
    world.api.pods[KSERVE_APP]["spec"]["containers"][0]["volumeMounts"] = [{"name": "tmp", "mountPath": "/mnt"}]


def _mnt_of_the_host(world: World) -> None:
    world.api.pods[KSERVE_APP]["spec"]["volumes"][1] = {"name": "kserve-provision-location", "hostPath": {"path": "/m"}}


def _no_sidecar(world: World) -> None:
    del world.api.pods[KSERVE_APP]["spec"]["containers"][1]


def _another_kserve_modelcar(world: World) -> None:
    one = world.api.pods[KSERVE_APP]
    for item in (one["spec"]["initContainers"][0], one["spec"]["containers"][1]):
        item["image"] = f"model@{objects.OTHER_DIGEST}"


def _another_crd_version(world: World) -> None:
    world.api.crds[0]["spec"]["versions"][0]["name"] = "v1alpha1"


def _crd_not_established(world: World) -> None:
    world.api.crds[1]["status"]["conditions"][0]["status"] = "False"


def _canary(world: World) -> None:
    world.api.inference_services[0]["spec"]["predictor"]["canaryTrafficPercent"] = 10


def _knative(world: World) -> None:
    annotations = {"serving.kserve.io/deploymentMode": "Knative"}
    world.api.inference_services[0]["metadata"]["annotations"] = annotations


def _token_mounted(world: World) -> None:
    mount = {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    world.api.pods[RAW_APP]["spec"]["containers"][0]["volumeMounts"].append(mount)


def _other_directory(world: World) -> None:
    world.api.pods[RAW_APP]["spec"]["containers"][0]["env"][0]["value"] = objects.OTHER_DIGEST


def _any_key(world: World) -> None:
    world.kserve = replace(world.kserve, faults=frozenset({Fault.KEY_NOT_COMPARED}))


def _kserve_routes_everything(world: World) -> None:
    world.kserve = replace(world.kserve, faults=frozenset({Fault.EVERYTHING_ROUTED}))


def policy(index: int, **values: Any) -> Callable[[World], None]:
    """Fields of a NetworkPolicy have other values; 0 is raw's, 1 is KServe's."""
    return lambda world: world.api.policies[index]["spec"].update(values)


BROKEN: tuple[Broken, ...] = (
    Broken("api_server_answers", "cluster", lambda world: setattr(world.api, "phase", "Terminating"), "is Terminating"),
    Broken(
        "crds_are_served",
        "cluster",
        lambda world: world.api.crds.clear(),
        "inferenceservices.serving.kserve.io is absent",
    ),
    Broken("crds_are_served", "cluster", _another_crd_version, "and not v1beta1"),
    Broken("crds_are_served", "cluster", _crd_not_established, "is not established"),
    Broken(
        "namespace_enforces_pod_security",
        "cluster",
        lambda world: world.api.namespace_labels.pop("pod-security.kubernetes.io/enforce"),
        "enforces nothing",
    ),
    Broken(
        "namespace_enforces_pod_security",
        "cluster",
        lambda world: world.api.namespace_labels.update({"pod-security.kubernetes.io/enforce": "privileged"}),
        "enforces privileged",
    ),
    Broken(
        "network_policy_isolates_the_engine",
        "raw",
        lambda world: world.api.policies.clear(),
        "no NetworkPolicy selects the pod for Ingress; no NetworkPolicy selects the pod for Egress",
    ),
    Broken(
        "network_policy_isolates_the_engine",
        "kserve",
        policy(1, podSelector={"matchLabels": {"app": "another"}}),
        "no NetworkPolicy selects the pod for Ingress",
    ),
    Broken(
        "network_policy_isolates_the_engine",
        "raw",
        policy(0, policyTypes=["Ingress"]),
        "no NetworkPolicy selects the pod for Egress",
    ),
    Broken("network_policy_isolates_the_engine", "raw", policy(0, ingress=[{}]), "qwen-raw admits everybody"),
    Broken(
        "network_policy_isolates_the_engine",
        "raw",
        policy(0, ingress=[{"from": [{"namespaceSelector": {}}]}]),
        "qwen-raw admits pods {} of namespaces {}",
    ),
    Broken(
        "network_policy_isolates_the_engine",
        "raw",
        policy(0, ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
        "qwen-raw admits addresses 0.0.0.0/0",
    ),
    Broken(
        "network_policy_isolates_the_engine",
        "kserve",
        policy(1, egress=[{"ports": [{"protocol": "UDP", "port": 53}]}]),
        "qwen-kserve lets out to",
    ),
    Broken(
        "network_policy_is_enforced",
        "kserve",
        lambda world: setattr(world.api, "exec_exit_code", 4),
        "own port does not answer",
    ),
    Broken(
        "network_policy_is_enforced",
        "kserve",
        lambda world: setattr(world.api, "exec_exit_code", 126),
        "the probe ended with 126",
    ),
    Broken(
        "network_policy_is_enforced",
        "kserve",
        lambda world: setattr(world.api, "exec_refusal", 403),
        "exec in modelcar was refused with 403",
    ),
    Broken(
        "kserve_pod_is_hardened", "kserve", security(KSERVE_APP, readOnlyRootFilesystem=False), "kserve-container lacks"
    ),
    Broken(
        "kserve_pod_is_hardened", "kserve", pod_security(KSERVE_APP, runAsNonRoot=False), "modelcar lacks runAsNonRoot"
    ),
    Broken("each_key_opens_its_own_path_alone", "both", _any_key, "the key of raw on kserve: GET /v1/models: 200"),
    Broken("health_answers_200", "raw", fault(Fault.UNHEALTHY), "503"),
    Broken("models_names_the_model", "raw", fault(Fault.OTHER_MODEL_LISTED), "models ['other']"),
    Broken("chat_completion_answers", "raw", fault(Fault.COMPLETION_500), "EngineDeadError"),
    Broken("chat_completion_answers", "raw", fault(Fault.NO_FINGERPRINT), "no system_fingerprint"),
    Broken("chat_completion_answers", "raw", fault(Fault.NO_USAGE), "usage.completion_tokens is None"),
    Broken("chat_completion_answers", "raw", fault(Fault.UNFINISHED), "no choice with a finish_reason"),
    Broken("answer_holds_what_it_knows", "raw", fault(Fault.WRONG_ANSWER), "is full of bananas"),
    Broken("answer_holds_what_it_knows", "raw", fault(Fault.COMPLETION_500), "500"),
    Broken("stream_ends_with_done", "raw", fault(Fault.NO_DONE), "ended without [DONE]"),
    Broken("stream_ends_with_done", "raw", fault(Fault.CHUNKS_AFTER_DONE), "events after [DONE]"),
    Broken("stream_ends_with_done", "raw", fault(Fault.CHUNK_NOT_JSON), '{"choices": ['),
    Broken("stream_ends_with_done", "raw", fault(Fault.STREAM_AS_JSON), "content-type is application/json"),
    Broken("stream_ends_with_done", "raw", fault(Fault.NO_FINISH_IN_STREAM), "0 chunks with a finish_reason"),
    Broken("stream_ends_with_done", "raw", fault(Fault.NO_USAGE_IN_STREAM), "no chunk with usage"),
    Broken("stream_ends_with_done", "raw", fault(Fault.STREAM_500), "500"),
    Broken("unknown_model_is_404", "raw", fault(Fault.ANY_MODEL), "200"),
    Broken("malformed_body_is_refused", "raw", fault(Fault.MALFORMED_500), "500"),
    Broken("malformed_body_is_refused", "raw", fault(Fault.MESSAGES_500), "500"),
    Broken("missing_key_is_401", "raw", fault(Fault.NO_KEY_ASKED), "200"),
    Broken("missing_key_is_401", "raw", fault(Fault.OPEN_MODEL_LIST), "GET /v1/models: 200"),
    Broken("missing_key_is_401", "kserve", _kserve_open, "200"),
    Broken("wrong_key_is_401", "raw", fault(Fault.KEY_NOT_COMPARED), "200"),
    Broken("wrong_host_is_404", "raw", fault(Fault.ANY_HOST), "200"),
    Broken("open_paths_are_not_routed", "raw", fault(Fault.EVERYTHING_ROUTED), "/metrics 200, /docs 200, /version 200"),
    Broken("open_paths_are_not_routed", "kserve", _kserve_routes_everything, "/metrics 200"),
    Broken(
        "route_timeout_is_as_asked", "kserve", lambda world: world.api.routes.clear(), "no HTTPRoute names the host"
    ),
    Broken(
        "route_timeout_is_as_asked",
        "kserve",
        lambda world: world.api.routes[1]["spec"]["rules"][0]["timeouts"].update(request="60s"),
        "timeouts.request is 60s",
    ),
    Broken(
        "route_timeout_is_as_asked",
        "raw",
        lambda world: world.api.routes[0]["spec"]["rules"][0].clear(),
        "timeouts.request is not set",
    ),
    Broken(
        "route_timeout_is_as_asked", "raw", lambda world: world.api.routes[0]["spec"].update(rules=[]), "has no rule"
    ),
    Broken(
        "route_timeout_is_as_asked",
        "raw",
        lambda world: world.api.routes[0]["spec"]["rules"][0].update(backendRefs=[{"name": "another"}]),
        "no rule leads to the Service",
    ),
    Broken("webhook_made_the_modelcar_form", "kserve", spec(KSERVE_APP, initContainers=[]), "no init container"),
    Broken("webhook_made_the_modelcar_form", "kserve", _no_sidecar, "no sidecar modelcar"),
    Broken("webhook_made_the_modelcar_form", "kserve", _no_link, "does not link /mnt/models"),
    Broken(
        "webhook_made_the_modelcar_form",
        "kserve",
        spec(KSERVE_APP, shareProcessNamespace=False),
        "shareProcessNamespace is False",
    ),
    Broken("webhook_made_the_modelcar_form", "kserve", security(KSERVE_APP, runAsUser=0), "runs as uid 0"),
    Broken("webhook_made_the_modelcar_form", "kserve", container(KSERVE_APP, 0, env=[]), "lacks MODEL_INIT_MODE=async"),
    Broken(
        "webhook_made_the_modelcar_form",
        "kserve",
        container(KSERVE_APP, 0, name="other"),
        "no container kserve-container",
    ),
    Broken("webhook_made_the_modelcar_form", "kserve", _separate_mnt, "/mnt is volume tmp in kserve-container"),
    Broken("webhook_made_the_modelcar_form", "kserve", _mnt_of_the_host, "is not an emptyDir"),
    Broken("pod_runs_the_modelcar_built", "kserve", _another_kserve_modelcar, "no container or image volume names it"),
    Broken(
        "pod_runs_the_modelcar_built",
        "kserve",
        status(KSERVE_APP, "containerStatuses", 1, f"model@{objects.OTHER_DIGEST}"),
        "container modelcar runs model@sha256:0",
    ),
    Broken("pod_runs_the_modelcar_built", "raw", status(RAW_APP, "initContainerStatuses", 0, ""), "runs nothing yet"),
    Broken("pod_runs_the_modelcar_built", "raw", _other_directory, "has MODELCAR_DIGEST sha256:0"),
    Broken(
        "pod_runs_the_modelcar_built", "raw", lambda world: world.api.pods.pop(RAW_APP), "the Deployment has no pod"
    ),
    Broken(
        "pod_runs_the_modelcar_built",
        "raw",
        lambda world: world.api.deployments.pop("qwen-raw"),
        "the API server says 404",
    ),
    Broken(
        "engine_is_offline", "raw", container(RAW_APP, 0, env=objects.OFFLINE[:1]), "TRANSFORMERS_OFFLINE is not set"
    ),
    Broken(
        "engine_is_offline",
        "kserve",
        container(KSERVE_APP, 0, args=["--model=Qwen/Qwen2.5-0.5B-Instruct"]),
        "the model is Qwen/Qwen2.5-0.5B-Instruct",
    ),
    Broken("engine_is_offline", "raw", container(RAW_APP, 0, args=["--port=1"]), "not in the arguments"),
    Broken("engine_is_offline", "raw", container(RAW_APP, 0, image="engine:latest"), "no container runs"),
    Broken(
        "modelcar_link_leads_to_the_model",
        "kserve",
        lambda world: setattr(world.api, "exec_refusal", 403),
        "exec in modelcar was refused with 403",
    ),
    Broken(
        "modelcar_link_leads_to_the_model",
        "kserve",
        lambda world: setattr(world.api, "exec_exit_code", 1),
        "the test of /mnt/models in modelcar ended with 1",
    ),
    Broken("raw_pod_is_hardened", "raw", pod_security(RAW_APP, runAsUser=0), "lacks runAsUser 65532"),
    Broken("raw_pod_is_hardened", "raw", security(RAW_APP, runAsUser=0), "vllm lacks runAsUser 65532"),
    Broken("raw_pod_is_hardened", "raw", pod_security(RAW_APP, runAsNonRoot=False), "lacks runAsNonRoot"),
    Broken("raw_pod_is_hardened", "raw", pod_security(RAW_APP, seccompProfile={"type": "Unconfined"}), "lacks seccomp"),
    Broken(
        "raw_pod_is_hardened", "raw", security(RAW_APP, readOnlyRootFilesystem=False), "lacks readOnlyRootFilesystem"
    ),
    Broken("raw_pod_is_hardened", "raw", security(RAW_APP, allowPrivilegeEscalation=True), "lacks allowPrivilege"),
    Broken("raw_pod_is_hardened", "raw", security(RAW_APP, capabilities={"drop": []}), "lacks capabilities.drop ALL"),
    Broken(
        "raw_pod_is_hardened", "raw", spec(RAW_APP, automountServiceAccountToken=None), "automountServiceAccountToken"
    ),
    Broken("raw_pod_is_hardened", "raw", _token_mounted, "lacks no service-account token"),
    Broken("same_modelcar_on_both_paths", "both", _another_kserve_modelcar, "kserve: no container or image volume"),
    Broken(
        "same_engine_on_both_paths",
        "both",
        status(RAW_APP, "containerStatuses", 0, f"engine@{objects.OTHER_DIGEST}"),
        "raw: runs engine@sha256:0",
    ),
    Broken(
        "same_engine_on_both_paths", "both", container(KSERVE_APP, 0, image="engine:tag"), "kserve: no container runs"
    ),
    Broken("canary_percent_is_refused", "kserve", _canary, "which has no effect"),
    Broken("canary_percent_is_refused", "kserve", _knative, "servepath would apply qwen-kserve"),
    Broken(
        "canary_percent_is_refused", "kserve", lambda world: world.api.inference_services.clear(), "no InferenceService"
    ),
)
