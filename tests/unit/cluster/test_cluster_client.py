"""A kubeconfig that cannot be used ends in one clear line, and is never written."""

from pathlib import Path

import anyio
import pytest
import yaml

from servepath.cluster.client import kubernetes, read_kubeconfig
from servepath.cluster.connect import connect
from servepath.cluster.model import Cluster
from servepath.errors import ClusterError

CONFIG = {
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
