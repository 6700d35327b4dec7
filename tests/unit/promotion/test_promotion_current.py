"""How the next version comes into the place of what is there, and what nothing needs any more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servepath.canary.slots import CLUSTER_LOCAL
from servepath.cluster.labels import RECORD, RELEASE, labels_of
from servepath.cluster.model import Cluster
from servepath.errors import ClusterError, PromotionRefusedError
from servepath.promotion.current import Current, read_current, refuse_canary
from servepath.promotion.orphans import orphans_of
from servepath.promotion.record import Strategy
from servepath.serving.model import ServingPath
from servepath.serving.slots import Slot
from tests.unit.promotion.examples import NAMESPACE, SPEC, deployment, inference_service, service
from tests.unit.promotion.examples import RELEASE as NAME

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from tests.unit.promotion.api_server import World

ENGINE = {"kind": "InferenceService", "metadata": {"labels": {**CLUSTER_LOCAL, "other": "label"}}}
CLUSTER = Cluster(Path("config"), "r.test", "http://g.test")


@pytest.mark.parametrize(
    ("engine", "is_serving", "path", "replace", "strategy"),
    [
        (None, False, ServingPath.KSERVE, False, Strategy.FIRST),
        (ENGINE, True, ServingPath.KSERVE, False, Strategy.CANARY),
        (ENGINE, True, ServingPath.KSERVE, True, Strategy.REPLACE),
        (ENGINE, False, ServingPath.KSERVE, False, Strategy.REPLACE),
        (ENGINE, True, ServingPath.RAW, False, Strategy.REPLACE),
        (None, False, ServingPath.RAW, True, Strategy.FIRST),
    ],
)
def test_a_canary_is_for_what_serves_on_the_kserve_path(
    *,
    engine: dict[str, Any] | None,
    is_serving: bool,
    path: ServingPath,
    replace: bool,
    strategy: Strategy,
) -> None:
    current = Current(engine, Slot.BLUE, is_serving, has_route=True)
    assert current.strategy(path, replace=replace) is strategy


def test_a_canary_goes_into_the_other_slot_and_a_replacement_into_the_same() -> None:
    current = Current(ENGINE, Slot.GREEN, is_serving=True, has_route=True)
    assert current.place_of(SPEC, Strategy.CANARY, ServingPath.KSERVE).name == NAME
    assert current.place_of(SPEC, Strategy.REPLACE, ServingPath.KSERVE).name == f"{NAME}-green"
    assert current.place_of(SPEC, Strategy.REPLACE, ServingPath.RAW).name == NAME
    assert current.labels == CLUSTER_LOCAL
    assert Current(None, Slot.BLUE, is_serving=False, has_route=False).labels == {}


def test_a_canary_of_somebody_else_is_not_disturbed() -> None:
    refuse_canary(Current(ENGINE, Slot.BLUE, is_serving=True, has_route=True), SPEC)
    with pytest.raises(PromotionRefusedError, match="a canary to x is under way") as caught:
        refuse_canary(Current(ENGINE, Slot.BLUE, True, True, "a canary to x is under way"), SPEC)
    assert caught.value.where == f"HTTPRoute {NAMESPACE}/{NAME}-stable"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("available", "status", "strategy"),
    [
        (3, {}, Strategy.CANARY),
        (2, {}, Strategy.CANARY),
        (0, {}, Strategy.REPLACE),
        (2, {"updatedReplicas": 1}, Strategy.REPLACE),
    ],
    ids=["whole", "one replica is missing", "broken", "in the middle of an update"],
)
async def test_what_serves_with_a_replica_less_is_not_replaced_in_place(
    client: AsyncClient, world: World, available: int, status: dict[str, int], strategy: Strategy
) -> None:
    running = deployment(f"{NAME}-kserve-predictor", wanted=3, available=available)
    world.put("deployments", NAMESPACE, running | {"status": running["status"] | status})
    world.put("inferenceservices", NAMESPACE, inference_service(f"{NAME}-kserve"))
    current = await read_current(client, SPEC, ServingPath.KSERVE)
    assert current.strategy(ServingPath.KSERVE, replace=False) is strategy


@pytest.mark.anyio
@pytest.mark.parametrize(
    "predictor",
    [{"model": {"modelFormat": {"name": "huggingface"}}}, {"containers": []}, {"containers": [{"name": "vllm"}]}],
    ids=["another predictor", "no container", "another container"],
)
async def test_an_engine_that_was_changed_by_hand_is_named(
    client: AsyncClient, world: World, predictor: dict[str, Any]
) -> None:
    changed = inference_service(f"{NAME}-kserve") | {"spec": {"predictor": predictor}}
    world.put("inferenceservices", NAMESPACE, changed)
    world.put("deployments", NAMESPACE, deployment(f"{NAME}-kserve-predictor"))
    with pytest.raises(ClusterError, match="somebody changed it by hand: ") as caught:
        await read_current(client, SPEC, ServingPath.KSERVE)
    assert caught.value.where == f"InferenceService {NAMESPACE}/{NAME}-kserve"
    stopped = Current(changed, Slot.BLUE, is_serving=False, has_route=True)
    with pytest.raises(ClusterError, match="somebody changed it by hand: "):
        stopped.digest(ServingPath.KSERVE)


def of_kind(kind: str, name: str, instance: str, **labels: str) -> dict[str, Any]:
    made = service(name, labels={"app.kubernetes.io/managed-by": "servepath", "app.kubernetes.io/instance": instance})
    made["metadata"]["labels"] |= labels
    return made | {"kind": kind}


def kept(kind: str, number: int) -> dict[str, Any]:
    made = of_kind(kind, f"{NAME}-promotion-{number:06d}", "")
    made["metadata"]["labels"] = labels_of(NAME) | {RECORD: str(number)}
    return made


def test_what_belongs_to_an_engine_or_a_record_is_no_orphan() -> None:
    objects = (
        kept("ConfigMap", 1),
        kept("ConfigMap", 2),
        kept("Secret", 2),
        of_kind("InferenceService", "smol-kserve", "smol-kserve"),
        of_kind("HTTPRoute", "smol-stable", "smol-stable"),
        of_kind("Secret", "smol-green-kserve", "smol-green-kserve"),
    )
    assert orphans_of(CLUSTER, objects, {(NAME, "2")}) == ()


def test_each_orphan_has_its_reason_and_its_command() -> None:
    owned = of_kind("Service", "made-by-kserve", "elsewhere-kserve")
    owned["metadata"]["ownerReferences"] = [{"kind": "InferenceService", "controller": True}]
    objects = (
        owned,
        kept("ConfigMap", 1),
        kept("Secret", 1),
        of_kind("InferenceService", "other-kserve", "other-kserve"),
        of_kind("PersistentVolumeClaim", "old-raw", "old-raw"),
    )
    found = {one.place: (one.reason, one.delete_command) for one in orphans_of(CLUSTER, objects, set())}
    kubectl = f"kubectl --kubeconfig config -n {NAMESPACE} delete"
    assert found == {
        f"Secret {NAMESPACE}/smol-promotion-000001": (
            "what was there before promotion 1, which is over",
            f"{kubectl} secret smol-promotion-000001",
        ),
        f"InferenceService {NAMESPACE}/other-kserve": (
            "an engine that no promotion made",
            f"{kubectl} inferenceservice other-kserve",
        ),
        f"PersistentVolumeClaim {NAMESPACE}/old-raw": (
            "there is no engine of the name old-raw",
            f"{kubectl} persistentvolumeclaim old-raw",
        ),
    }
    assert RELEASE in labels_of(NAME)
