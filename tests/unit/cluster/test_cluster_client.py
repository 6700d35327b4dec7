"""A kubeconfig that cannot be used ends in one clear line, and is never written."""

import copy
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from servepath.cluster.client import kubectl_for, kubernetes, read_kubeconfig
from servepath.cluster.connect import connect
from servepath.cluster.model import Cluster
from servepath.errors import ClusterError

CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "one",
    "clusters": [
        {"name": "one", "cluster": {"server": "http://127.0.0.1:1"}},
        {"name": "two", "cluster": {"server": "http://127.0.0.1:2"}},
    ],
    "users": [{"name": "me", "user": {}}],
    "contexts": [
        {"name": "one", "context": {"cluster": "one", "user": "me"}},
        {"name": "two", "context": {"cluster": "two", "user": "me"}},
        {"name": "userless", "context": {"cluster": "two"}},
    ],
}


def cluster_of(kubeconfig: Path, context: str = "") -> Cluster:
    return Cluster(kubeconfig=kubeconfig, registry="r.test", gateway_url="http://g.test", context=context)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def test_another_context_is_used_and_the_file_stays_as_it_is(kubeconfig: Path) -> None:
    before = kubeconfig.read_bytes()
    assert read_kubeconfig(cluster_of(kubeconfig)).cluster.server == "http://127.0.0.1:1"
    assert read_kubeconfig(cluster_of(kubeconfig, "two")).cluster.server == "http://127.0.0.1:2"
    assert kubeconfig.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a kubeconfig"),
        ("a: [", "not a kubeconfig"),
        ("clusters: 3", "not a kubeconfig"),
        ("just words", "not a kubeconfig"),
        (yaml.safe_dump(CONFIG | {"current-context": "three"}), "'three' not found"),
        (
            yaml.safe_dump({key: value for key, value in CONFIG.items() if key != "current-context"}),
            "No current context",
        ),
    ],
)
def test_file_that_is_no_kubeconfig(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ClusterError, match=complaint) as caught:
        read_kubeconfig(cluster_of(path))
    assert caught.value.where == str(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="not found"):
        read_kubeconfig(cluster_of(tmp_path / "nothing"))


@pytest.mark.parametrize(("context", "complaint"), [("one", "does not answer"), ("userless", "cannot be used")])
def test_api_server_that_cannot_be_reached(kubeconfig: Path, context: str, complaint: str) -> None:
    async def work() -> None:
        async with kubernetes(cluster_of(kubeconfig, context)) as client:
            await client._client._client.get("/version")

    with pytest.raises(ClusterError, match=complaint):
        anyio.run(work)


def test_connect_says_that_the_api_does_not_answer(kubeconfig: Path) -> None:
    with pytest.raises(ClusterError, match="does not answer"):
        anyio.run(connect, kubeconfig, "r.test")


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("clusters", "certificate-authority"),
        ("users", "client-certificate"),
        ("users", "client-key"),
        ("users", "tokenFile"),
    ],
)
def test_a_file_that_the_kubeconfig_names_and_that_is_missing_is_named(
    tmp_path: Path, section: str, field: str
) -> None:
    config = {name: copy.deepcopy(value) for name, value in CONFIG.items()}
    for entry in config[section]:
        entry[section.removesuffix("s")][field] = "pki/gone.pem"
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))

    async def work() -> None:
        async with kubernetes(cluster_of(path)):
            pytest.fail("a client was made of it")

    with pytest.raises(ClusterError, match=f"its {field} is not there: {tmp_path}/pki/gone.pem") as caught:
        anyio.run(work)
    assert caught.value.where == str(path)
    assert caught.value.next_command == f"ls -l {tmp_path}/pki/gone.pem"


def test_a_hint_is_for_this_cluster_and_not_for_the_users_own(kubeconfig: Path) -> None:
    async def work() -> None:
        async with kubernetes(cluster_of(kubeconfig, "two")) as client:
            await client._client._client.get("/version")

    with pytest.raises(ClusterError) as caught:
        anyio.run(work)
    assert caught.value.next_command == f"kubectl --kubeconfig {kubeconfig} --context two cluster-info"


def test_a_hint_of_a_task_is_for_this_cluster_too(kubeconfig: Path) -> None:
    async def fail() -> None:
        raise ClusterError("it failed", next_command="kubectl get pods")

    async def work() -> None:
        async with kubernetes(cluster_of(kubeconfig)), anyio.create_task_group() as group:
            group.start_soon(fail)

    with pytest.raises(BaseExceptionGroup) as caught:
        anyio.run(work)
    (error,) = caught.value.exceptions
    assert isinstance(error, ClusterError)
    assert error.next_command == f"kubectl --kubeconfig {kubeconfig} get pods"


def test_only_a_kubectl_command_is_given_options_and_only_once() -> None:
    cluster = cluster_of(Path("/a b/config"))
    once = kubectl_for(cluster, "kubectl -n demo get pods")
    assert once == "kubectl --kubeconfig '/a b/config' -n demo get pods"
    assert kubectl_for(cluster, once) == once
    assert kubectl_for(cluster, "servepath deploy --help") == "servepath deploy --help"
    assert kubectl_for(cluster, "") == ""
