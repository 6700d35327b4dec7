"""An older revision's readiness is not taken for the newer one's."""

import copy
from typing import Any

from servepath.errors import ClusterError
from servepath.serving import readiness
from servepath.serving.readiness import carries, host_when_ready, is_rolled_out, last_lines

CONTAINER = {
    "name": "kserve-container",
    "image": "r.test/e@sha256:1",
    "args": ["/mnt/models"],
    "env": [{"name": "STORAGE_URI", "value": "oci://r.test/m@sha256:2"}],
}
READY: dict[str, Any] = {
    "metadata": {"generation": 2},
    "spec": {"replicas": 1, "template": {"spec": {"containers": [CONTAINER | {"resources": {}}]}}},
    "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
}


def changed(**status: int) -> dict[str, Any]:
    deployment = copy.deepcopy(READY)
    deployment["status"] |= status
    return deployment


def test_complete_rollout() -> None:
    assert is_rolled_out(READY, CONTAINER)


def test_controller_has_not_seen_the_newest_spec() -> None:
    assert not is_rolled_out(changed(observedGeneration=1), CONTAINER)


def test_old_pod_still_there_or_new_one_not_available() -> None:
    assert not is_rolled_out(changed(replicas=2), CONTAINER)
    assert not is_rolled_out(changed(updatedReplicas=0), CONTAINER)
    assert not is_rolled_out(changed(availableReplicas=0), CONTAINER)


def test_kserve_has_not_written_the_new_deployment_yet() -> None:
    changes: list[dict[str, Any]] = [{"image": "r.test/e@sha256:9"}, {"args": ["/mnt/models", "--x"]}, {"env": []}]
    for change in changes:
        assert not is_rolled_out(READY, CONTAINER | change)


def test_stopped_is_not_ready() -> None:
    stopped = copy.deepcopy(READY)
    stopped["spec"]["replicas"] = 0
    stopped["status"] = {"observedGeneration": 2}
    assert not is_rolled_out(stopped, CONTAINER)


def test_host_of_a_service() -> None:
    ready = {"status": {"url": "http://x-demo.example.com", "conditions": [{"type": "Ready", "status": "True"}]}}
    assert host_when_ready(ready) == "x-demo.example.com"
    assert host_when_ready({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}) is None
    assert host_when_ready({"status": ready["status"] | {"conditions": []}}) is None


def test_annotations_tell_a_revision() -> None:
    template = {"metadata": {"annotations": {"a": "1", "b": "2"}}}
    assert carries(template, {"a": "1"})
    assert carries(template, {})
    assert carries({}, {})
    assert not carries(template, {"a": "2"})
    assert not carries({"metadata": {"annotations": None}}, {"a": "1"})


def test_a_log_in_an_error_is_its_end_and_no_line_of_it_is_endless() -> None:
    log = "\n".join([f"line {number}" for number in range(100)] + ["x" * 10_000]) + "\n\n"
    shown = last_lines(log).splitlines()
    assert len(shown) == 20
    assert shown[0] == "line 81"
    assert shown[-1] == "x" * 300 + " …"


def test_the_key_is_in_no_text_of_an_error() -> None:
    error = ClusterError("it said key-01", where="at key-01", expected="not key-01", next_command="echo key-01")
    shown = readiness._without_key(error, "key-01")
    assert isinstance(shown, ClusterError)
    assert "key-01" not in str(shown)
    assert "it said [redacted]" in str(shown)
    assert str(readiness._without_key(error, "")) == str(error)
