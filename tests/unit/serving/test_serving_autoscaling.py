"""Which numbers of replicas are refused and why, and what each class becomes on each path."""

from dataclasses import replace
from functools import cache
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.errors import UsageError
from servepath.serving.autoscaling import check_autoscaling
from servepath.serving.model import AutoscalerClass, Autoscaling, ServingPath
from servepath.serving.profiles import CPU_SMALL, PROFILES
from servepath.serving.render import render
from tests.unit.serving.conftest import make_spec

HPA = Autoscaling(AutoscalerClass.HPA, min_replicas=2, max_replicas=4, waiting_per_replica=7, cpu_percent=60)
KEDA = replace(HPA, autoscaler=AutoscalerClass.KEDA, prometheus_url="http://prometheus.test:9090")
TO_ZERO = replace(KEDA, min_replicas=0, wake_query="sum(rate(requests_total[1m]))")

REFUSED = {
    "one replica": Autoscaling(max_replicas=2),
    "servepath stop": Autoscaling(min_replicas=0),
    "min <= max": Autoscaling(AutoscalerClass.KEDA, min_replicas=3, max_replicas=2),
    "--autoscaler keda": replace(HPA, min_replicas=0),
    "--wake-query": replace(KEDA, min_replicas=0),
}


@cache
def rendered(autoscaling: Autoscaling, path: ServingPath) -> dict[str, dict[str, Any]]:
    spec = make_spec(replace(CPU_SMALL, autoscaling=autoscaling))
    return {obj["kind"]: obj for obj in anyio.run(render, spec, path)}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_a_profile_runs_one_engine_unless_it_is_told_otherwise(profile: Any) -> None:
    assert profile.autoscaling == Autoscaling(AutoscalerClass.NONE, 1, 1)
    check_autoscaling(profile.autoscaling)


@pytest.mark.parametrize("expected", REFUSED)
def test_what_a_cluster_would_not_do_is_refused_with_what_would_do(expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_autoscaling(REFUSED[expected])
    assert expected in caught.value.expected


@given(st.sampled_from(AutoscalerClass), st.integers(-1, 3), st.integers(-1, 3), st.sampled_from(["", "up"]))
def test_only_keda_with_something_to_wake_it_goes_to_zero(
    autoscaler: AutoscalerClass, lowest: int, most: int, wake_query: str
) -> None:
    autoscaling = Autoscaling(autoscaler, lowest, most, wake_query=wake_query)
    try:
        check_autoscaling(autoscaling)
    except UsageError:
        return
    assert 0 <= lowest <= most
    assert lowest > 0 or (autoscaler is AutoscalerClass.KEDA and wake_query)
    assert autoscaler is not AutoscalerClass.NONE or lowest == most == 1


@pytest.mark.parametrize("path", list(ServingPath))
def test_the_spec_is_refused_before_anything_is_built(path: ServingPath) -> None:
    with pytest.raises(UsageError, match="nobody to decide"):
        anyio.run(render, make_spec(replace(CPU_SMALL, autoscaling=Autoscaling(max_replicas=2))), path)


def test_raw_without_a_class_has_one_replica_and_its_volume() -> None:
    objects = rendered(Autoscaling(), ServingPath.RAW)
    assert objects["Deployment"]["spec"]["replicas"] == 1
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & objects.keys()
    assert "PersistentVolumeClaim" in objects


@pytest.mark.parametrize(("autoscaling", "kind"), [(HPA, "HorizontalPodAutoscaler"), (KEDA, "ScaledObject")])
def test_raw_leaves_replicas_to_its_autoscaler_and_gives_each_its_own_copy(autoscaling: Autoscaling, kind: str) -> None:
    objects = rendered(autoscaling, ServingPath.RAW)
    deployment = objects["Deployment"]["spec"]
    assert "replicas" not in deployment
    assert deployment["template"]["spec"]["volumes"][0] == {"name": "hf", "emptyDir": {}}
    assert "PersistentVolumeClaim" not in objects
    assert objects[kind]["metadata"]["name"] == objects["Deployment"]["metadata"]["name"] == "smol-raw"
    target = objects[kind]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "smol-raw"}


def test_raw_hpa_looks_at_the_requests_that_wait() -> None:
    spec = rendered(HPA, ServingPath.RAW)["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 4)
    pods = spec["metrics"][0]["pods"]
    assert pods["metric"]["name"] == "vllm_num_requests_waiting"
    assert pods["target"]["averageValue"] == "7"


def test_kserve_hpa_looks_at_the_cpu() -> None:
    service = rendered(HPA, ServingPath.KSERVE)["InferenceService"]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
    predictor = service["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 4)
    assert (predictor["scaleMetric"], predictor["scaleTarget"]) == ("cpu", 60)


def test_both_paths_ask_keda_the_same_question_of_their_own_pods() -> None:
    raw = rendered(KEDA, ServingPath.RAW)["ScaledObject"]["spec"]
    assert (raw["minReplicaCount"], raw["maxReplicaCount"]) == (2, 4)
    assert raw["cooldownPeriod"] == CPU_SMALL.startup_timeout_s
    service = rendered(KEDA, ServingPath.KSERVE)["InferenceService"]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    [trigger] = raw["triggers"]
    [metric] = service["spec"]["predictor"]["autoScaling"]["metrics"]
    for address, query, threshold, pods in (
        (*(trigger["metadata"][key] for key in ("serverAddress", "query", "threshold")), "smol-raw-.*"),
        (
            metric["external"]["metric"]["serverAddress"],
            metric["external"]["metric"]["query"],
            metric["external"]["target"]["value"],
            "smol-kserve-predictor-.*",
        ),
    ):
        assert address == "http://prometheus.test:9090"
        assert query == f'sum(vllm:num_requests_waiting{{namespace="demo",pod=~"{pods}"}})'
        assert threshold == "7"


@pytest.mark.parametrize("path", list(ServingPath))
def test_to_zero_also_asks_who_runs_and_who_knocks(path: ServingPath) -> None:
    objects = rendered(TO_ZERO, path)
    if path is ServingPath.RAW:
        asked = [trigger["metadata"] for trigger in objects["ScaledObject"]["spec"]["triggers"]]
        queries = [(one["query"], one["threshold"]) for one in asked]
    else:
        metrics = objects["InferenceService"]["spec"]["predictor"]["autoScaling"]["metrics"]
        queries = [(one["external"]["metric"]["query"], one["external"]["target"]["value"]) for one in metrics]
    (waiting, limit), (running, _), (waking, never) = queries
    assert "num_requests_waiting" in waiting
    assert "num_requests_running" in running
    assert waking == TO_ZERO.wake_query
    assert int(limit) == 7
    # They keep one replica, and never ask for a second.
    assert int(never) >= 1_000_000


@pytest.mark.parametrize("path", list(ServingPath))
def test_prometheus_reaches_the_engine_beside_the_gateway(path: ServingPath) -> None:
    before = rendered(Autoscaling(), path)["NetworkPolicy"]["spec"]["ingress"]
    after = rendered(KEDA, path)["NetworkPolicy"]["spec"]["ingress"]
    assert after[: len(before)] == before
    [prometheus] = after[len(before) :]
    name = {"key": "app.kubernetes.io/name", "operator": "In", "values": ["prometheus"]}
    assert prometheus["from"] == [{"namespaceSelector": {}, "podSelector": {"matchExpressions": [name]}}]
    assert prometheus["ports"] == [{"protocol": "TCP", "port": 8080}]
