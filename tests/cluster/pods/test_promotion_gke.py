"""A whole promotion through a GKE session: Google's clients, the overlay of GKE, a token that is taken back on the way.

The caller has the roles of manifests/promotion/access and nothing else. The GPU is an extended resource of the node,
the engine is the stand-in in the place of vLLM: API server, KServe, kubelet, gateway and registry are real.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.cluster.client import kubernetes
from servepath.cluster.connect import connect
from servepath.evidence import Verdict
from servepath.gke.connect import gke_cluster
from servepath.modelcar.registry.client import RegistryOptions
from servepath.promotion.history import read_history
from servepath.promotion.model import PromotionRequest
from servepath.promotion.preflight.run import preflight
from servepath.promotion.record import State
from servepath.promotion.run import run_promotion
from servepath.serving.model import ServingPath, ServingSpec
from servepath.stages import Stages
from tests.cluster.google_account import TARGET, Account, asked, google_of
from tests.cluster.pods.test_promotion_cluster import GATE, QUICK, RUN, SPEED, Watching, give_gpus
from tests.contract.kubernetes_schemas import ROOT
from tests.unit.gke.google_server import PROJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

NAMESPACE = "promotion-gke"
NAME = "tiny"
BINDINGS = (
    (NAMESPACE, "rolebinding", "servepath-promoter"),
    ("kserve", "rolebinding", "servepath-promoter-platform"),
    ("", "clusterrolebinding", "servepath-promoter-cluster"),
)


@pytest.fixture
async def promoter(plane: ControlPlane) -> AsyncIterator[Account]:
    """Who may do what the roles allow."""
    found = Account(plane)
    await found.create()
    await plane.kubectl("create", "namespace", NAMESPACE)
    await plane.kubectl("apply", "-k", str(ROOT / "manifests/promotion/access"))
    for namespace, kind, role in BINDINGS:
        scope = (f"--namespace={namespace}",) if namespace else ()
        await plane.kubectl("create", kind, role, f"--clusterrole={role}", found.subject, *scope)
    yield found
    for namespace, kind, role in BINDINGS:
        await plane.kubectl("delete", kind, role, *((f"--namespace={namespace}",) if namespace else ()))
    await plane.kubectl("delete", "-k", str(ROOT / "manifests/promotion/access"))
    await plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    await found.delete()


async def test_a_promotion_to_gke(
    plane: ControlPlane,
    serving_cluster: Cluster,
    standin: Standin,
    promoter: Account,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await give_gpus(plane, 1)
    first, second = await promoter.token("first"), await promoter.token("second")
    google = google_of(plane, serving_cluster.registry)
    google.mint, google.lifetime_s = (lambda _: first), 0
    told: dict[str, CheckResult] = {}

    def expire() -> None:
        google.mint = lambda _: second

    with asked(google, tmp_path, monkeypatch) as options:
        async with gke_cluster(
            TARGET, f"{PROJECT}/models", gateway_class=serving_cluster.gateway_class, options=options
        ) as session:
            place = session.repository
            assert place is not None
            cluster = await connect(session.cluster.kubeconfig, place.registry, session.cluster.gateway_class)

            registries = RegistryOptions(credentials={place.registry: session.registry_credentials})

            async def look(spec: ServingSpec) -> tuple[CheckResult, ...]:
                await promoter.take_back("first")
                found = await preflight(
                    cluster, spec, (ServingPath.KSERVE,), gke=session, registries=registries, may_start_a_pod=True
                )
                told.update({check.name: check for check in found})
                return found

            request = PromotionRequest(
                cluster=cluster,
                source=standin.modelcars[0],
                repository=f"{place.path}/tiny",
                namespace=NAMESPACE,
                name=NAME,
                served_model_name="tiny",
                engine_image=standin.engine,
                profile=replace(standin.profile, name="gke", engine_args=SPEED, patience_s=5),
                gate=GATE,
                canary=None,
                api_key="key-of-the-promotion",
                registries=registries,
                lease=QUICK,
                preflight=look,
            )
            report = await run_promotion(request, RUN, Stages(Watching({"plan": expire}), 0.0), apply=True)
            failed = [(check.name, check.seen) for check in report.checks if check.verdict is Verdict.FAIL]
            assert report.error is None, failed or report.error
            async with kubernetes(cluster) as client:
                (kept,) = await read_history(client, NAMESPACE, NAME)
    assert kept.record.state is State.SUCCEEDED
    assert promoter.name in kept.record.who
    assert kept.record.spec.modelcar_reference.startswith(f"{place.registry}/{PROJECT}/models/tiny@sha256:")
    assert told["node_for_tiny_kserve"].verdict is Verdict.PASS
    assert told["registry_for_the_nodes"].verdict is Verdict.PASS
