"""The pure judgements that no broken world above needs to reach."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servepath.checks.asking import Question, chat, completion, get
from servepath.checks.isolation_checks import model_argument
from servepath.checks.kubernetes import kubectl
from servepath.checks.modelcar_checks import judge_link, judge_modelcar_digest
from servepath.checks.network_checks import is_at_large, peer_in_words, selects
from servepath.checks.parity_checks import judge_same_engine
from servepath.checks.pods import digest_of
from servepath.checks.route_checks import duration_s, judge_timeouts
from servepath.cluster.model import Cluster
from servepath.serving.model import Endpoint, ServingPath
from servepath.serving.slots import Slot
from tests.unit.checks import objects


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("300s", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("0s", 0),
        ("1500ms", 1.5),
        ("", None),
        ("300", None),
        ("5m 3s", None),
    ],
)
def test_gateway_api_durations(written: str, seconds: float | None) -> None:
    assert duration_s(written) == seconds


@pytest.mark.parametrize(
    ("container", "model"),
    [
        ({"args": ["/mnt/models", "--port=8080"]}, "/mnt/models"),
        ({"args": ["--model", "/mnt/models"]}, "/mnt/models"),
        ({"args": ["--port=1", "--model=/mnt/models"]}, "/mnt/models"),
        ({"command": ["vllm", "serve", "/mnt/models"]}, "/mnt/models"),
        ({"command": ["sh", "-c", "exec vllm serve 'org/model' --port=1"]}, "org/model"),
        ({"args": ["--served-model-name=x"]}, ""),
        ({}, ""),
    ],
)
def test_the_model_in_the_arguments(container: dict[str, list[str]], model: str) -> None:
    assert model_argument(container) == model


def test_digests_of_references() -> None:
    assert digest_of(objects.MODELCAR) == objects.MODELCAR_DIGEST
    assert digest_of("127.0.0.1:5000/model:latest") == ""


def test_a_link_that_dangles_is_a_problem() -> None:
    assert judge_link(0, "") == []
    assert judge_link(1, "") == ["the test of /mnt/models in modelcar ended with 1"]
    assert judge_link(2, "sh: not found\n") == ["the test of /mnt/models in modelcar ended with 2 sh: not found"]


def test_an_image_volume_holds_the_modelcar_too() -> None:
    volume = {"name": "model", "image": {"reference": objects.MODELCAR}}
    pod = {"spec": {"containers": [{"name": "engine", "image": objects.ENGINE}], "volumes": [volume]}}
    assert judge_modelcar_digest(pod, objects.MODELCAR_DIGEST) == []
    assert "volume model=" in judge_modelcar_digest(pod, objects.OTHER_DIGEST)[0]


def test_engines_that_were_asked_for_differently_are_not_the_same() -> None:
    other = f"engine@{objects.OTHER_DIGEST}"
    problems = judge_same_engine(objects.raw_pod(), objects.ENGINE, objects.kserve_pod(), other)
    assert problems[0].startswith("raw was deployed with")


def test_engines_that_were_not_pulled_are_compared_by_their_config_digest() -> None:
    raw, kserve = objects.raw_pod(), objects.kserve_pod()
    raw["status"]["containerStatuses"][0]["imageID"] = "sha256:" + "c" * 64
    kserve["status"]["containerStatuses"][0]["imageID"] = "sha256:" + "c" * 64
    assert judge_same_engine(raw, objects.ENGINE, kserve, objects.ENGINE) == []
    kserve["status"]["containerStatuses"][0]["imageID"] = "sha256:" + "d" * 64
    assert judge_same_engine(raw, objects.ENGINE, kserve, objects.ENGINE)[0].startswith("raw runs sha256:c")


def test_the_curl_line_can_be_pasted_and_holds_no_key() -> None:
    body = '{"text": "it\'s"}'
    question = Question("http://127.0.0.1:80/", "a.test", "/v1/x", body, "secret")
    words = shlex.split(question.curl())
    assert words[0] == "curl"
    assert words[-1] == "http://127.0.0.1:80/v1/x"
    assert body in words
    assert "Authorization: Bearer $VLLM_API_KEY" in words
    assert "secret" not in question.curl() + repr(question)
    assert "Authorization" not in replace(question, key="").curl()


def test_the_kubectl_line_names_the_kubeconfig_and_the_context() -> None:
    cluster = Cluster(Path("/a b/config"), "r", "http://g", context="c")
    words = shlex.split(kubectl(cluster, "get", "nodes"))
    assert words == ["kubectl", "--kubeconfig", "/a b/config", "--context", "c", "get", "nodes"]


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


POD = {"metadata": {"labels": {"app": "vllm", "tier": "gpu"}}}
IN = expression("g", "In", "x", "y")


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "vllm"}}, True),
        ({"matchLabels": {"app": "vllm", "tier": "cpu"}}, False),
        ({"matchLabels": {"app": "vllm"}, "matchExpressions": [expression("tier", "In", "cpu", "gpu")]}, True),
        ({"matchExpressions": [expression("tier", "In", "cpu")]}, False),
        ({"matchExpressions": [expression("tier", "NotIn", "cpu")]}, True),
        ({"matchExpressions": [expression("absent", "NotIn", "cpu")]}, True),
        ({"matchExpressions": [expression("tier", "NotIn", "gpu")]}, False),
        ({"matchExpressions": [expression("app", "Exists")]}, True),
        ({"matchExpressions": [expression("absent", "Exists")]}, False),
        ({"matchExpressions": [expression("absent", "DoesNotExist"), expression("app", "DoesNotExist")]}, False),
    ],
)
def test_a_label_selector_selects_as_kubernetes_does(selector: dict[str, Any], *, selected: bool) -> None:
    assert selects(selector, POD) is selected


def test_who_is_admitted_is_said_in_words() -> None:
    assert peer_in_words({"podSelector": {"matchLabels": {"a": "b"}}}) == "pods {a=b} of its own namespace"
    assert peer_in_words({"ipBlock": {"cidr": "10.0.0.0/8"}}) == "addresses 10.0.0.0/8"
    gateway = {"namespaceSelector": {"matchLabels": {"n": "kserve"}}, "podSelector": {"matchExpressions": [IN]}}
    assert peer_in_words(gateway) == "pods {g In x,y} of namespaces {n=kserve}"
    assert not is_at_large(gateway)
    assert is_at_large({"namespaceSelector": {}})
    assert not is_at_large({"podSelector": {}}), "every pod of the namespace, which is not everybody"


def test_a_slot_is_asked_by_its_header_in_every_kind_of_question() -> None:
    endpoint = Endpoint(
        ServingPath.KSERVE, "http://127.0.0.1:80", "a.test", "m", "ns", "w", "sha256:0", "e", 0.0, slot=Slot.GREEN
    )
    for question in (get(endpoint, "/health"), chat(endpoint, "x"), completion(endpoint, "x")):
        assert question.headers()["servepath-slot"] == "green"
        assert "-H 'servepath-slot: green'" in question.curl()
        assert "servepath-slot" not in replace(question, slot=None).headers()


def test_the_timeout_of_another_slots_rule_is_not_this_engines() -> None:
    def rule(service: str, timeout: str) -> dict[str, Any]:
        return {"backendRefs": [{"name": service}], "timeouts": {"request": timeout}}

    route = {"metadata": {"name": "a"}, "spec": {"rules": [rule("green", "60s"), rule("blue", "5m")]}}
    assert judge_timeouts([route], 300, "blue") == []
    assert judge_timeouts([route], 300, "green") == ["HTTPRoute a rule 0: timeouts.request is 60s"]
