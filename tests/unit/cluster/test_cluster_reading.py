"""What is read out of objects: the gateway's address, conditions, node facts, events."""

from typing import Any

import pytest

from servepath.cluster.connect import url_of
from servepath.cluster.diagnostics import event_line, without_noise
from servepath.cluster.facts import cpu_model, facts_of
from servepath.cluster.objects import is_ours, place
from servepath.cluster.wait import conditions, describe, is_observed
from servepath.errors import ClusterError


def gateway(address: str = "10.0.0.1", *, programmed: str = "True", protocol: str = "HTTP") -> dict[str, Any]:
    return {
        "metadata": {"name": "g", "namespace": "kserve"},
        "spec": {"gatewayClassName": "x", "listeners": [{"name": "a", "protocol": protocol, "port": 8081}]},
        "status": {
            "addresses": [{"type": "IPAddress", "value": address}],
            "conditions": [{"type": "Programmed", "status": programmed}],
        },
    }


def test_url_of_a_gateway() -> None:
    assert url_of(gateway()) == "http://10.0.0.1:8081"
    assert url_of(gateway("fd00::1")) == "http://[fd00::1]:8081"
    assert url_of(gateway("lb.test")) == "http://lb.test:8081"


def test_gateway_that_is_not_programmed_has_no_url() -> None:
    assert url_of(gateway(programmed="False")) is None
    assert url_of(gateway() | {"status": {}}) is None


def test_gateway_without_http() -> None:
    with pytest.raises(ClusterError, match="no HTTP listener"):
        url_of(gateway(protocol="HTTPS"))


def test_conditions_in_words() -> None:
    obj = {
        "status": {
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "NotYet", "message": "wait"},
                {"type": "Good", "status": "True"},
            ]
        }
    }
    assert describe(obj) == "Ready=False NotYet (wait)"
    assert conditions(obj)["Good"].status == "True"
    assert describe(None) == "it does not exist"


def test_observed_generation() -> None:
    assert is_observed({"metadata": {"generation": 2}, "status": {"observedGeneration": 2}})
    assert not is_observed({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}})
    assert not is_observed({"metadata": {"generation": 1}})


def test_only_our_label_is_ours() -> None:
    assert is_ours({"metadata": {"labels": {"app.kubernetes.io/managed-by": "servepath"}}})
    assert not is_ours({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}})
    assert not is_ours({"metadata": {"labels": None}})
    assert place({"kind": "Service", "metadata": {"name": "a", "namespace": "b"}}) == "Service b/a"


def test_node_facts() -> None:
    node = {
        "metadata": {"name": "n"},
        "status": {
            "capacity": {"cpu": "2", "memory": "23Gi"},
            "nodeInfo": {
                "kernelVersion": "6.1",
                "kubeletVersion": "v1.34.4",
                "containerRuntimeVersion": "containerd://1.6",
            },
        },
    }
    facts = facts_of(node)
    assert (facts["cpus"], facts["gpus"], facts["kubelet"]) == ("2", "0", "v1.34.4")
    assert facts["container_runtime"] == "containerd://1.6"


def test_cpu_model() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t: x\n") == "Some CPU @ 2.0GHz"
    assert cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n") == ""


def test_event_is_one_line() -> None:
    event = {
        "type": "Warning",
        "reason": "Failed",
        "message": "one\n two",
        "count": 3,
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "involvedObject": {"kind": "Pod", "name": "p"},
    }
    assert event_line(event) == "2026-01-01T00:00:00Z Warning Failed Pod/p: one two (x3)"


def test_noise_is_dropped_and_the_rest_kept() -> None:
    obj = {
        "metadata": {
            "name": "a",
            "managedFields": [{}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"},
        },
        "spec": {},
    }
    assert without_noise(obj) == {"metadata": {"name": "a", "annotations": {"kept": "yes"}}, "spec": {}}
