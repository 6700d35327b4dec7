"""The real cause behind a workload that does not become ready: pure functions over what the API server tells.

A Deployment or an InferenceService says no more than "MinimumReplicasUnavailable"; the pods' statuses know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.cluster.wait import conditions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_AT_ONCE = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CrashLoopBackOff")
_IN_TIME = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LLMD_FAILURES = ("ConfigNotFound", "RefsInvalid", "GatewayPreconditionNotMet")
_FINAL_WORDS = ("denied the request", "is forbidden", "is invalid", "exceeded quota", "no matches for kind")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a workload will not become ready.

    Attributes:
        reason: Kubernetes' own word, such as `CrashLoopBackOff`.
        message: what was said with it.
        container: the container whose last log lines tell more, empty where none ran.
        may_pass: it can still go away by itself (a node that is being added, a Secret that comes late).
    """

    reason: str
    message: str
    container: str = ""
    may_pass: bool = False

    def __str__(self) -> str:
        who = f"container {self.container}: " if self.container else ""
        return f"{who}{self.reason}" + (f": {self.message}" if self.message else "")


def cause_in_pod(pod: Mapping[str, Any]) -> Cause | None:
    """Give the cause why a pod will not run, None while there is hope."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return None
    found = list(_causes_in_containers(pod))
    if found:
        return min(found, key=lambda cause: cause.may_pass)
    if (pod.get("status") or {}).get("phase") == "Failed":
        status = pod["status"]
        return Cause(status.get("reason") or "Failed", status.get("message") or "the pod failed")
    scheduled = conditions(pod).get("PodScheduled")
    if scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable":
        return Cause("Unschedulable", scheduled.message, may_pass=True)
    return None


def cause_in_deployment(deployment: Mapping[str, Any]) -> Cause | None:
    """Give the cause why a Deployment cannot make its pods: a webhook's refusal, a quota, an invalid pod."""
    failure = conditions(deployment).get("ReplicaFailure")
    if failure is None or failure.status != "True":
        return None
    return Cause(failure.reason or "ReplicaFailure", failure.message, may_pass=not is_final(failure.message))


def cause_in_inferenceservice(service: Mapping[str, Any]) -> Cause | None:
    """Give the cause why KServe cannot reconcile an InferenceService (its reason is then `ReconcileFailed`)."""
    for condition in conditions(service).values():
        if condition.status == "False" and condition.reason == "ReconcileFailed":
            return Cause(condition.reason, condition.message, may_pass=not is_final(condition.message))
    return None


def cause_in_llminferenceservice(service: Mapping[str, Any]) -> Cause | None:
    """Give the cause why KServe cannot reconcile an LLMInferenceService.

    Its reasons: a preset that is missing, presets that do not combine, a Gateway that is not there, or a part that the
    API server refused (KServe v0.19.0, pkg/controller/v1alpha2/llmisvc: config_merge.go, router.go).
    """
    for condition in conditions(service).values():
        failed = condition.reason in _LLMD_FAILURES or condition.reason.endswith("Error")
        if condition.status == "False" and failed:
            return Cause(condition.reason, condition.message, may_pass=not is_final(condition.message))
    return None


def is_final(message: str) -> bool:
    """Tell whether a refusal stays: the same request made again would be refused again."""
    return any(words in message for words in _FINAL_WORDS)


def _causes_in_containers(pod: Mapping[str, Any]) -> Iterator[Cause]:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            if reason in _AT_ONCE:
                yield Cause(reason, _message(container, waiting), container["name"])
            elif reason in _IN_TIME:
                yield Cause(reason, _message(container, waiting), container["name"], may_pass=True)


def _message(container: Mapping[str, Any], waiting: Mapping[str, Any]) -> str:
    """Say how the container ended last, where it ran; else what the kubelet says of its waiting."""
    ended = (container.get("lastState") or {}).get("terminated")
    if ended:
        text = f"{ended.get('reason') or 'ended'}, exit code {ended.get('exitCode')}"
        count = container.get("restartCount", 0)
        return f"{text}, {count} restarts" + (f": {ended['message']}" if ended.get("message") else "")
    return f"{waiting.get('message', '')} (image {container.get('image', '')})".strip()
