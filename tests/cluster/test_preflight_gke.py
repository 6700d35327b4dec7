"""A real API server behind the Kubernetes Engine API: Google's clients, a run's kubeconfig, and a token that expires.

The tokens that the local Google hands out are a ServiceAccount's, so that the API server itself says what they open.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from lightkube.resources.core_v1 import Namespace

from ci.node import registry
from servepath.cluster.client import kubernetes
from servepath.errors import ClusterError
from servepath.evidence import Verdict
from servepath.gke.connect import gke_cluster
from servepath.promotion.preflight.run import preflight
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import GKE
from tests.cluster.google_account import CACHED_S, TARGET, Account, asked, google_of
from tests.cluster.unschedulable import IMAGE
from tests.unit.gke.google_server import PROJECT, Google

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ci.node.control_plane import ControlPlane
    from servepath.gke.model import GoogleOptions

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]


@pytest.fixture
async def account(plane: ControlPlane) -> AsyncIterator[Account]:
    found = Account(plane)
    await found.create()
    await plane.kubectl("create", "clusterrolebinding", found.name, "--clusterrole=cluster-admin", found.subject)
    yield found
    await plane.kubectl("delete", "clusterrolebinding", found.name)
    await found.delete()


@pytest.fixture
def google(plane: ControlPlane) -> Google:
    return google_of(plane, registry.ADDRESS)


@pytest.fixture
def options(google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleOptions]:
    with asked(google, tmp_path, monkeypatch) as found:
        yield found


async def test_a_token_of_an_hour_does_not_end_a_run_of_two(
    account: Account, google: Google, options: GoogleOptions
) -> None:
    first = await account.token("first")
    google.mint = lambda _: first
    google.lifetime_s = 0
    async with gke_cluster(TARGET, options=options) as session:
        token_file = anyio.Path(session.cluster.kubeconfig.parent / "token")
        async with kubernetes(session.cluster) as client:
            assert [one async for one in client.list(Namespace)]
            second = await account.token("second")
            google.mint = lambda _: second
            await account.take_back("first")
            with anyio.move_on_after(CACHED_S + 5):
                while True:
                    assert [one async for one in client.list(Namespace)], "the run goes on"
                    await anyio.sleep(0.5)
            assert await token_file.read_text() == second
        stale = token_file.parent / "stale"
        await stale.write_text(first)
        text = await anyio.Path(session.cluster.kubeconfig).read_text()
        other = token_file.parent / "other"
        await other.write_text(text.replace(str(token_file), str(stale)))
        with pytest.raises(ClusterError, match="Unauthorized"):
            async with kubernetes(replace(session.cluster, kubeconfig=Path(other))) as client:
                [one async for one in client.list(Namespace)]


async def test_a_pool_that_may_grow_and_the_quota_of_its_region(
    account: Account, google: Google, options: GoogleOptions
) -> None:
    token = await account.token("only")
    google.mint = lambda _: token
    spec = ServingSpec("preflight-gke", "smol", "smol", IMAGE, IMAGE, GKE)
    async with gke_cluster(TARGET, f"{PROJECT}/models", options=options) as session:
        results = {one.name: one for one in await preflight(session.cluster, spec, (ServingPath.RAW,), gke=session)}
        kubeconfig = str(session.cluster.kubeconfig)
    assert results["node_for_smol_raw"].seen == "pool l4 may grow to 4 nodes"
    assert results["quota_preemptible_nvidia_l4_gpus"].verdict is Verdict.SKIP
    assert results["may_use_nodes_in_cluster"].verdict is Verdict.PASS
    assert not [one for one in results.values() if kubeconfig in one.next_command], "it is gone by now"
    assert "get-credentials models --project acme-models" in results["gateway_is_programmed"].next_command
