"""A GKE cluster for one run: what is written, who reads it, what is left, and a token that expires on the way."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml
from lightkube.resources.core_v1 import Namespace

from ci.node.pki import create_authority
from servepath.cluster.client import kubernetes
from servepath.errors import ClusterError, RegistryError
from servepath.gke.connect import GkeSession, gke_cluster, lasting
from servepath.gke.token_file import write_private
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from tests.unit.gke.google_server import CLUSTER, PROJECT, REGION, REPOSITORY, Google, GoogleServer, failure
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servepath.gke.model import GkeTarget, GoogleOptions

pytestmark = pytest.mark.anyio

NAMES: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "kserve"}}]}


@pytest.fixture
def api_server(google: Google, tmp_path: Path) -> Iterator[str]:
    """An API server and a registry that let in who has a token of Google's."""
    authority = create_authority(tmp_path / "pki")
    tls = authority.issue("server", "server", hosts=("127.0.0.1",))
    google.resources["/api/v1/namespaces"] = {"kind": "NamespaceList", "apiVersion": "v1", **NAMES}
    google.resources["/v2/"] = {}
    with served(GoogleServer(google, tls)) as server, served(GoogleServer(google)) as registry:
        ca = base64.b64encode(authority.pair.certificate.read_bytes()).decode()
        google.resources[f"/v1/projects/{PROJECT}/locations/{REGION}/clusters/models"] = {
            **CLUSTER,
            "endpoint": server.address,
            "masterAuth": {"clusterCaCertificate": ca},
        }
        google.resources[f"/v1/projects/{PROJECT}/locations/{REGION}/repositories/models"] = {
            **REPOSITORY,
            "registryUri": f"{registry.address}/{PROJECT}/models",
        }
        yield server.address


async def names(session: GkeSession) -> list[str]:
    async with kubernetes(session.cluster) as client:
        return [str(one.metadata.name) async for one in client.list(Namespace) if one.metadata]


@pytest.mark.usefixtures("api_server")
async def test_what_is_written_is_private_and_gone_afterwards(
    target: GkeTarget, options: GoogleOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "config"
    own.write_text("current-context: mine\n")
    monkeypatch.setenv("KUBECONFIG", str(own))
    async with gke_cluster(target, f"{PROJECT}/models", options=options) as session:
        assert await names(session) == ["kserve"]
        written = session.cluster.kubeconfig
        assert written.parent.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in written.parent.iterdir()} == {0o600}
        config = yaml.safe_load(written.read_text())
        assert config["current-context"] == target.name
        assert config["users"][0]["user"] == {"tokenFile": str(written.parent / "token")}
        assert (written.parent / "token").read_text() not in repr(session)
    assert not written.parent.exists()
    assert own.read_text() == "current-context: mine\n"


@pytest.mark.usefixtures("api_server")
async def test_a_failure_leaves_nothing_and_says_what_still_works(target: GkeTarget, options: GoogleOptions) -> None:
    folders = []

    async def refused() -> None:
        async with gke_cluster(target, options=options) as session:
            folders.append(session.cluster.kubeconfig.parent)
            write_private(folders[0] / "token", "somebody else's")
            await names(session)

    with pytest.raises(ClusterError, match="Unauthorized"):
        await refused()
    assert not folders[0].exists()
    with pytest.raises(ClusterError) as caught:
        async with gke_cluster(target, options=options) as session:
            raise ClusterError("no", next_command=f"kubectl --kubeconfig {session.cluster.kubeconfig} get pods")
    assert caught.value.next_command == (
        "KUBECONFIG=gke.kubeconfig gcloud container clusters get-credentials models --project acme-models "
        "--location europe-west4 && kubectl --kubeconfig gke.kubeconfig get pods"
    )
    assert lasting("gcloud info", session) == "gcloud info"


@pytest.mark.usefixtures("api_server")
@pytest.mark.parametrize("fails", [False, True], ids=["a result", "an error"])
async def test_what_an_interrupted_run_comes_to_is_not_lost(
    target: GkeTarget, options: GoogleOptions, *, fails: bool
) -> None:
    async def interrupted() -> str:
        async with gke_cluster(target, options=options):
            scope.cancel()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                if fails:
                    raise ClusterError("not put back") from None
        return "put back"  # as a promotion that reports its end does

    came_to: list[str] = []
    with anyio.CancelScope() as scope:
        try:
            came_to.append(await interrupted())
        except ClusterError as error:
            came_to.append(error.what)
    assert came_to == ["not put back" if fails else "put back"]


async def until_it_holds_a_token_of(path: Path, google: Google) -> None:
    with anyio.fail_after(10):
        while await anyio.Path(path).read_text() not in google.good:  # noqa: ASYNC110 - nothing tells of a file
            await anyio.sleep(0.01)


@pytest.mark.usefixtures("api_server")
async def test_a_run_outlives_its_token(
    target: GkeTarget, options: GoogleOptions, google: Google, caplog: pytest.LogCaptureFixture
) -> None:
    google.lifetime_s = 0
    async with gke_cluster(target, f"{PROJECT}/models", options=replace(options, look_every_s=0.05)) as session:
        assert session.repository is not None
        host = session.repository.registry
        registry = RegistryOptions(credentials={host: session.registry_credentials})
        token_file = session.cluster.kubeconfig.parent / "token"
        async with kubernetes(session.cluster) as client, open_registry(host, registry) as images:
            await images.ping()
            assert [one async for one in client.list(Namespace)]
            # The token expires, Google is out for a while, and a new one opens everything again, on the same clients.
            google.good.clear()
            google.faults["/sts/v1/token"] = [failure(503, "UNAVAILABLE", "later")] * 4
            google.lifetime_s = 3600
            await until_it_holds_a_token_of(token_file, google)
            assert [one async for one in client.list(Namespace)]
            await images.ping()
    assert "no access token in 3 attempts" in caplog.text
    assert not google.faults["/sts/v1/token"]


async def test_nothing_is_written_for_a_cluster_that_is_not_there(target: GkeTarget, options: GoogleOptions) -> None:
    with pytest.raises(ClusterError, match="Not found"):
        async with gke_cluster(replace(target, name="absent"), options=options):
            raise AssertionError
    with pytest.raises(RegistryError, match="Not found"):
        async with gke_cluster(target, f"{PROJECT}/absent", options=options):
            raise AssertionError
