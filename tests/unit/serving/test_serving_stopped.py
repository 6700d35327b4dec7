"""What tells a stopped path from a running one, and what switches it."""

from typing import Any

import pytest

from servepath.serving.model import ServingPath
from servepath.serving.stopped import STOP_ANNOTATION, deployment_name, is_stopped, pod_labels, switch_patch

DEPLOYMENT: dict[str, Any] = {
    "metadata": {"name": "smol-raw"},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app.kubernetes.io/instance": "smol-raw"}}},
}
SERVICE: dict[str, Any] = {"metadata": {"name": "smol-kserve"}, "spec": {"predictor": {}}}
ENGINES = {ServingPath.RAW: DEPLOYMENT, ServingPath.KSERVE: SERVICE}


def merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Apply a JSON merge patch, RFC 7386."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


@pytest.mark.parametrize("path", list(ServingPath))
def test_the_patch_stops_and_starts_and_a_second_time_changes_nothing(path: ServingPath) -> None:
    running = ENGINES[path]
    assert not is_stopped(running, path)
    stopped = merged(running, switch_patch(path, stopped=True))
    assert is_stopped(stopped, path)
    assert merged(stopped, switch_patch(path, stopped=True)) == stopped
    started = merged(stopped, switch_patch(path, stopped=False))
    assert not is_stopped(started, path)
    assert merged(started, switch_patch(path, stopped=False)) == started


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_the_annotation_is_read_as_kserve_reads_it(value: str, *, expected: bool) -> None:
    service = SERVICE | {"metadata": {"name": "smol-kserve", "annotations": {STOP_ANNOTATION: value}}}
    assert is_stopped(service, ServingPath.KSERVE) is expected


def test_a_deployment_without_replicas_runs_one() -> None:
    assert not is_stopped({"spec": {}}, ServingPath.RAW)


def test_pods_and_deployment_of_each_path() -> None:
    assert pod_labels(DEPLOYMENT, ServingPath.RAW) == {"app.kubernetes.io/instance": "smol-raw"}
    assert pod_labels(SERVICE, ServingPath.KSERVE) == {"serving.kserve.io/inferenceservice": "smol-kserve"}
    assert deployment_name(DEPLOYMENT, ServingPath.RAW) == "smol-raw"
    assert deployment_name(SERVICE, ServingPath.KSERVE) == "smol-kserve-predictor"
