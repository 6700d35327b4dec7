"""The real cause is read from statuses as kubelet, scheduler and KServe write them."""

from typing import Any

import pytest

from servepath.serving.causes import cause_in_deployment, cause_in_inferenceservice, cause_in_pod


def pod(container: dict[str, Any] | None = None, *, kind: str = "containerStatuses", **status: Any) -> dict[str, Any]:
    statuses = {kind: [container]} if container else {}
    return {"metadata": {"name": "p"}, "status": {"phase": "Pending", **statuses, **status}}


def waiting(reason: str, message: str = "", **rest: Any) -> dict[str, Any]:
    return {"name": "vllm", "image": "r.test/e", "state": {"waiting": {"reason": reason, "message": message}}, **rest}


def test_running_and_starting_pods_have_no_cause() -> None:
    assert cause_in_pod(pod({"name": "vllm", "state": {"running": {}}})) is None
    assert cause_in_pod(pod(waiting("ContainerCreating"))) is None
    assert cause_in_pod(pod(waiting("PodInitializing"))) is None


def test_image_that_cannot_be_pulled() -> None:
    cause = cause_in_pod(pod(waiting("ImagePullBackOff", "Back-off pulling image"), kind="initContainerStatuses"))
    assert cause is not None
    assert not cause.may_pass
    assert str(cause) == "container vllm: ImagePullBackOff: Back-off pulling image (image r.test/e)"


def test_first_failed_pull_is_tried_again_by_the_kubelet() -> None:
    assert cause_in_pod(pod(waiting("ErrImagePull"))) is None


def test_crash_says_how_the_container_ended() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    cause = cause_in_pod(pod(waiting("CrashLoopBackOff", "back-off 10s", lastState=ended, restartCount=3)))
    assert str(cause) == "container vllm: CrashLoopBackOff: OOMKilled, exit code 137, 3 restarts"


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_what_may_still_pass_is_marked(reason: str) -> None:
    cause = cause_in_pod(pod(waiting(reason, 'secret "x" not found')))
    assert cause is not None
    assert cause.may_pass


def test_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient memory"}
    cause = cause_in_pod(pod(conditions=[condition]))
    assert cause is not None
    assert (cause.reason, cause.message, cause.may_pass) == ("Unschedulable", "Insufficient memory", True)


def test_evicted() -> None:
    cause = cause_in_pod(pod(phase="Failed", reason="Evicted", message="low on memory"))
    assert str(cause) == "Evicted: low on memory"


def test_pod_that_is_being_deleted_is_nobodys_fault() -> None:
    dying = pod(waiting("CrashLoopBackOff"))
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert cause_in_pod(dying) is None


@pytest.mark.parametrize(
    ("message", "final"),
    [
        ('admission webhook "inferenceservice.kserve-webhook-server.pod-mutator" denied the request: no', True),
        ("pods x is forbidden: exceeded quota: q", True),
        ("failed calling webhook: connect: connection refused", False),
    ],
)
def test_refused_pods(message: str, *, final: bool) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    cause = cause_in_deployment({"status": {"conditions": [condition]}})
    assert cause is not None
    assert cause.may_pass is not final
    assert cause_in_deployment({"status": {"conditions": [condition | {"status": "False"}]}}) is None


def test_reconcile_failed() -> None:
    message = "Deployment.apps is invalid: spec.template.spec.containers[0].resources.requests: must be less than limit"
    condition = {"type": "PredictorReady", "status": "False", "reason": "ReconcileFailed", "message": message}
    cause = cause_in_inferenceservice({"status": {"conditions": [condition]}})
    assert str(cause) == f"ReconcileFailed: {message}"
    waiting_for_pods = condition | {"reason": "MinimumReplicasUnavailable"}
    assert cause_in_inferenceservice({"status": {"conditions": [waiting_for_pods]}}) is None
