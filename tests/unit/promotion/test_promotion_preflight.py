"""Preflight's judgements, each with a cluster in which the thing is there and one in which it is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servepath.errors import ClusterError, PromotionRefusedError
from servepath.evidence import CheckResult, Verdict
from servepath.gke.model import ArtifactRepository, GkeFacts, GkeTarget, NodePool, Quota
from servepath.promotion.model import PromotionRequest
from servepath.promotion.plan import make_plan
from servepath.promotion.preflight.capacity import check_disk, check_nodes, rooms_of
from servepath.promotion.preflight.needs import Needs, needs_of
from servepath.promotion.preflight.probe import judge_pull, probe_registry
from servepath.promotion.preflight.quota import check_regional_quota, check_resource_quotas, metric_of
from servepath.promotion.preflight.registry import check_registry
from servepath.promotion.preflight.results import missing, missing_of, refuse_missing, there, untold
from servepath.serving.profiles import GKE

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import ServingSpec
    from tests.unit.promotion.api_server import World

KUBECTL = "kubectl --kubeconfig ./k"
GIB = 2**30
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
TOLERATES = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
TARGET = GkeTarget("acme-models", "europe-west4", "models")
L4 = NodePool(
    name="l4",
    machine_type="g2-standard-8",
    accelerator_type="nvidia-l4",
    accelerators=1,
    is_autoscaled=True,
    max_nodes=1,
    disk_size_bytes=200 * 10**9,
    taints=("nvidia.com/gpu=present:NoSchedule",),
)


def facts(*pools: NodePool, **changed: Any) -> GkeFacts:
    return replace(GkeFacts(TARGET, "https://1.2.3.4", "", "1.34.1-gke.1", pools=pools), **changed)


def deployment(name: str = "model-raw", gpus: int = 1, **pod: Any) -> dict[str, Any]:
    amounts = {"cpu": "2", "memory": "12Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    container = {"name": "vllm", "resources": {"requests": amounts, "limits": amounts}}
    labels = {"app.kubernetes.io/instance": name}
    spec = {"containers": [container], "tolerations": [TOLERATES], **pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "servepath", "labels": labels},
        "spec": {"replicas": 1, "template": {"spec": spec}},
    }


def inference_service(**annotations: str) -> dict[str, Any]:
    amounts = {"nvidia.com/gpu": "1"}
    container = {"name": "vllm", "resources": {"requests": amounts, "limits": amounts}}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "model-kserve", "namespace": "servepath", "annotations": annotations},
        "spec": {"predictor": {"containers": [container]}},
    }


def claim(size: str = "10Gi") -> dict[str, Any]:
    spec = {"resources": {"requests": {"storage": size}}}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": "model-raw"}, "spec": spec}


def node(name: str = "gpu-1", gpus: int = 1, disk: str = "100Gi", **changed: Any) -> dict[str, Any]:
    allocatable = {"cpu": "7910m", "memory": "28Gi", "ephemeral-storage": disk}
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "allocatable": allocatable | ({"nvidia.com/gpu": str(gpus)} if gpus else {}),
    }
    labels = {"cloud.google.com/gke-nodepool": "l4"} if gpus else {}
    spec = {"taints": [GPU_TAINT] if gpus else []}
    made: dict[str, Any] = {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}
    for key, value in changed.items():
        made[key] = {**made[key], **value}
    return made


def pod_on(
    name: str,
    gpus: str = "1",
    instance: str = "somebody",
    phase: str = "Running",
    namespace: str = "servepath",
) -> dict[str, Any]:
    resources = {"requests": {"nvidia.com/gpu": gpus, "cpu": "100m"}}
    return {
        "metadata": {"namespace": namespace, "labels": {"app.kubernetes.io/instance": instance}},
        "spec": {"nodeName": name, "containers": [{"resources": resources}]},
        "status": {"phase": phase},
    }


def placed(
    objects: list[dict[str, Any]],
    nodes: list[dict[str, Any]],
    pods: list[dict[str, Any]] | None = None,
    known: GkeFacts | None = None,
) -> tuple[CheckResult, ...]:
    needs = needs_of(objects)
    return check_nodes(needs, rooms_of(nodes, pods or [], needs), KUBECTL, known)[0]


def verdicts(results: tuple[CheckResult, ...]) -> list[str]:
    return [str(result.verdict) for result in results]


@pytest.mark.parametrize(
    ("nodes", "pods", "reason"),
    [
        ([], [], "no node is ready"),
        ([node("cpu-1", gpus=0)], [], "cpu-1 has 0 nvidia.com/gpu free of 1"),
        ([node()], [pod_on("gpu-1")], "gpu-1 has 0 nvidia.com/gpu free of 1"),
        (
            [node()],
            [pod_on("gpu-1", instance="model-raw", namespace="staging")],
            "gpu-1 has 0 nvidia.com/gpu free of 1",
        ),
        ([node(spec={"unschedulable": True})], [], "no node is ready"),
        ([node(status={"conditions": [{"type": "Ready", "status": "False"}]})], [], "no node is ready"),
        (
            [node(spec={"taints": [{"key": "team", "value": "a", "effect": "NoExecute"}]})],
            [],
            "the taint team=a:NoExecute",
        ),
        (
            [node(status={"allocatable": {"nvidia.com/gpu": "1", "cpu": "8", "memory": "8Gi"}})],
            [],
            "8.0 GiB memory free",
        ),
    ],
    ids=["nothing", "no GPU", "taken", "a namesake of another namespace", "cordoned", "not ready", "taint", "memory"],
)
def test_a_pod_without_a_node(nodes: list[dict[str, Any]], pods: list[dict[str, Any]], reason: str) -> None:
    (result,) = placed([deployment()], nodes, pods)
    assert result.verdict is Verdict.FAIL
    assert reason in result.seen
    assert result.next_command.startswith(f"{KUBECTL} get nodes -o custom-columns=NAME:.metadata.name,GPUS:")


@pytest.mark.parametrize(
    "pods",
    [[], [pod_on("gpu-1", instance="model-raw")], [pod_on("gpu-1", phase="Succeeded")], [pod_on("elsewhere")]],
    ids=["empty", "replaced", "over", "elsewhere"],
)
def test_a_pod_with_a_node(pods: list[dict[str, Any]]) -> None:
    assert verdicts(placed([deployment()], [node("cpu-1", gpus=0), node()], pods)) == ["pass"]


def test_two_pods_do_not_share_one_gpu() -> None:
    both = [deployment("model-raw"), deployment("model-kserve")]
    assert verdicts(placed(both, [node()])) == ["pass", "fail"]
    assert verdicts(placed(both, [node(), node("gpu-2")])) == ["pass", "pass"]


def test_a_node_selector_is_kept() -> None:
    wanted = {"cloud.google.com/gke-spot": "true"}
    (result,) = placed([deployment(nodeSelector=wanted)], [node()])
    assert result.seen == "gpu-1 has no label cloud.google.com/gke-spot=true"
    assert verdicts(placed([deployment(nodeSelector=wanted)], [node(metadata={"labels": wanted})])) == ["pass"]


def test_a_pool_may_grow_up_to_its_end() -> None:
    both = [deployment("model-raw"), deployment("model-kserve")]
    assert verdicts(placed([deployment()], [], known=facts(L4))) == ["pass"]
    full = placed(both, [], known=facts(L4))
    assert verdicts(full) == ["pass", "fail"]
    assert "node-pools update l4 --cluster models" in full[1].next_command
    assert full[1].next_command.endswith("--enable-autoscaling --total-min-nodes 0 --total-max-nodes 2")
    assert verdicts(placed([deployment()], [node()], [pod_on("gpu-1")], known=facts(L4))) == ["fail"]


@pytest.mark.parametrize(
    ("pools", "fix"),
    [
        (
            (),
            "node-pools create gpu --cluster models --project acme-models --location europe-west4 --accelerator type=",
        ),
        ((NodePool(name="cpu", is_autoscaled=True, max_nodes=9),), "node-pools create gpu"),
        ((replace(L4, is_autoscaled=False, max_nodes=0),), "node-pools update l4 --cluster models"),
        ((replace(L4, taints=("team=a:NoSchedule",)),), "node-pools create gpu"),
    ],
    ids=["no pool", "no GPU", "not autoscaled", "taint"],
)
def test_a_pool_that_does_not_help(pools: tuple[NodePool, ...], fix: str) -> None:
    (result,) = placed([deployment()], [], known=facts(*pools))
    assert result.verdict is Verdict.FAIL
    assert fix in result.next_command


NAMED_L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
SPOTTED = {"cloud.google.com/gke-spot": "true"}
FULL = replace(L4, max_nodes=0)
"""A pool that suits and may not grow."""


@pytest.mark.parametrize(
    ("wanted", "pool", "options"),
    [
        (SPOTTED, FULL, " --spot"),
        (SPOTTED, replace(FULL, is_preemptible=True), " --spot"),
        (NAMED_L4, replace(FULL, accelerator_type="nvidia-tesla-t4"), " --accelerator type=nvidia-l4,count=1,"),
        ({"team": "a"}, replace(FULL, labels={"team": "b"}), " --node-labels=team=a"),
        ({}, replace(FULL, name="gpu", taints=("team=a:NoSchedule",)), " node-pools create gpu-2 "),
        ({"cloud.google.com/gke-nodepool": "ours"}, FULL, " node-pools create ours "),
    ],
    ids=["no Spot", "preemptible is not Spot", "another GPU", "another label", "its name is taken", "a named pool"],
)
def test_a_pool_that_the_pod_may_not_run_in_is_not_told_to_grow(
    wanted: dict[str, str], pool: NodePool, options: str
) -> None:
    (result,) = placed([deployment(nodeSelector=wanted)], [], known=facts(pool))
    assert result.verdict is Verdict.FAIL
    assert result.next_command.startswith("gcloud container node-pools create ")
    assert options in result.next_command
    labels = {**pool.labels, "team": "a"}
    suited = replace(pool, name="ours", accelerator_type="nvidia-l4", is_spot=True, labels=labels, taints=L4.taints)
    (grows,) = placed([deployment(nodeSelector=wanted)], [], known=facts(pool, suited))
    assert grows.next_command.startswith("gcloud container node-pools update ours ")


def test_limits_are_those_of_the_pool_and_enough_for_all_that_lack_a_node() -> None:
    three = [deployment(f"p{index}") for index in range(3)]
    pool = replace(L4, min_nodes=1)
    results = placed(three, [node()], [pod_on("gpu-1")], known=facts(pool))
    assert {one.next_command.partition(" --enable-autoscaling ")[2] for one in results} == {
        "--total-min-nodes 1 --total-max-nodes 4"
    }
    made = placed(three, [], known=facts())
    assert {one.next_command.partition("--num-nodes 0 ")[2].partition(" --disk")[0] for one in made} == {
        "--total-min-nodes 0 --total-max-nodes 3"
    }
    assert not [one for one in (*results, *made) if re.search(r"--(min|max)-nodes", one.next_command)]


@pytest.mark.parametrize(
    ("gpus", "wanted", "machine"),
    [
        (2, {}, "type=nvidia-l4,count=2,gpu-driver-version=latest --machine-type g2-standard-24 "),
        (3, {}, "type=nvidia-l4,count=4,gpu-driver-version=latest --machine-type g2-standard-48 "),
        (1, {"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"}, "--machine-type a2-ultragpu-1g "),
        (0, {}, "node-pools create cpu --cluster models --project acme-models --location europe-west4 --machine-type"),
    ],
    ids=["two GPUs", "three GPUs", "A100", "no GPU"],
)
def test_the_machine_of_a_pool_that_is_to_be_made(gpus: int, wanted: dict[str, str], machine: str) -> None:
    pod = deployment(gpus=gpus, nodeSelector=wanted, tolerations=[TOLERATES] if gpus else [])
    (result,) = placed([pod], [], known=facts(FULL))
    assert machine in result.next_command


def test_the_machine_of_a_gpu_that_is_sold_in_some_ways_alone_is_for_a_person_to_choose() -> None:
    wanted = {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    (result,) = placed([deployment(nodeSelector=wanted)], [], known=facts(FULL))
    assert result.next_command.startswith("gcloud compute machine-types list --project acme-models --filter=")
    assert "guestAcceleratorType=nvidia-h100-80gb" in result.next_command


def test_google_makes_a_node_only_of_a_gpu_that_is_named() -> None:
    named = [deployment(nodeSelector={"cloud.google.com/gke-accelerator": "nvidia-l4"})]
    autopilot = facts(is_autopilot=True)
    assert verdicts(placed(named, [], known=autopilot)) == ["pass"]
    (refused,) = placed([deployment()], [], known=autopilot)
    assert refused.next_command.startswith("gcloud compute accelerator-types list")
    assert verdicts(placed(named, [], known=facts(provisioned={"nvidia-l4": 1}))) == ["pass"]
    assert verdicts(placed(named, [], known=facts(provisioned={"nvidia-h100-80gb": 8}))) == ["fail"]


DISK = "disk-image=projects/acme/global/images/engine-1,mode=CONTAINER_IMAGE_CACHE"
STREAMED = {"cloud.google.com/gke-image-streaming": "true"}
PRELOADED = {
    "cloud.google.com.node-restriction.kubernetes.io/gke-secondary-boot-disk-engine-1": "CONTAINER_IMAGE_CACHE.acme"
}


@pytest.mark.parametrize(
    ("wanted", "pool", "fix"),
    [
        (STREAMED, {"streams_images": True}, "node-pools update l4 .* --enable-image-streaming"),
        (
            PRELOADED,
            {"preloads_images": True},
            f"node-pools create gpu .* --secondary-boot-disk={DISK}",
        ),
        (
            STREAMED | PRELOADED | {"cloud.google.com/gke-spot": "true"},
            {"streams_images": True, "preloads_images": True, "is_spot": True},
            f"node-pools create gpu .* --enable-image-streaming --spot --secondary-boot-disk={DISK}",
        ),
    ],
    ids=["Image streaming", "secondary boot disk", "all at once"],
)
def test_a_pool_has_what_its_nodes_must_be_chosen_for(wanted: dict[str, str], pool: dict[str, Any], fix: str) -> None:
    objects = [deployment(nodeSelector=wanted)]
    (refused,) = placed(objects, [], known=facts(L4))
    assert refused.verdict is Verdict.FAIL
    assert re.fullmatch(f"gcloud container {fix}", refused.next_command)
    assert disk(GIB, [], facts(L4), objects).verdict is Verdict.SKIP, "no node of that pool will pull them"
    assert verdicts(placed(objects, [], known=facts(L4, replace(L4, name="other", **pool)))) == ["pass"]
    assert disk(GIB, [], facts(replace(L4, **pool)), objects).verdict is Verdict.PASS


def test_the_pool_that_suits_is_the_one_to_enlarge() -> None:
    streams = replace(L4, name="streams", streams_images=True, max_nodes=0)
    (full,) = placed([deployment(nodeSelector=STREAMED)], [], known=facts(L4, streams))
    assert full.next_command.startswith("gcloud container node-pools update streams ")
    assert full.next_command.endswith("--total-max-nodes 1")


def disk(
    image_bytes: int,
    nodes: list[dict[str, Any]],
    known: GkeFacts | None = None,
    objects: list[dict[str, Any]] | None = None,
) -> CheckResult:
    needs = needs_of(objects or [deployment()])
    return check_disk(needs, nodes, image_bytes, kubectl=KUBECTL, facts=known)


def test_the_disk_must_hold_the_images_twice() -> None:
    assert disk(50 * GIB, [node(disk="100Gi")]).verdict is Verdict.PASS
    small = disk(50 * GIB, [node(disk="99Gi"), node("cpu-1", gpus=0, disk="900Gi")])
    assert small.verdict is Verdict.FAIL, "the big disk is on a node that has no GPU"
    assert small.seen == "99.0 GiB on gpu-1"
    assert disk(0, [node()]).verdict is Verdict.SKIP
    assert disk(GIB, []).verdict is Verdict.SKIP


def test_the_boot_disk_of_a_pool_without_nodes() -> None:
    assert disk(20 * GIB, [], facts(L4)).verdict is Verdict.PASS
    small = disk(20 * GIB, [], facts(replace(L4, disk_size_bytes=50 * 10**9)))
    assert small.verdict is Verdict.FAIL
    command = small.next_command
    assert command.startswith("gcloud container node-pools update l4 --cluster models")
    bigger = int(command.rpartition(" ")[2]) * 10**9
    assert disk(20 * GIB, [], facts(replace(L4, disk_size_bytes=bigger))).verdict is Verdict.PASS


def quota(**hard_and_used: tuple[str, str]) -> dict[str, Any]:
    names = {name.replace("_", "."): pair for name, pair in hard_and_used.items()}
    hard, used = ({name: pair[side] for name, pair in names.items()} for side in (0, 1))
    metadata = {"name": "team-quota", "namespace": "servepath"}
    return {"metadata": metadata, "status": {"hard": hard, "used": used}}


NOTHING = needs_of([])


def quotas(entry: dict[str, Any], replaced: Needs = NOTHING) -> CheckResult:
    (result,) = check_resource_quotas(needs_of([deployment(), claim()]), [entry], replaced, KUBECTL)
    return result


@pytest.mark.parametrize(
    ("entry", "short"),
    [
        (quota(requests_cpu=("4", "2"), limits_memory=("12Gi", "0")), ""),
        (quota(requests_cpu=("4", "2500m")), '"requests.cpu":"4.5"'),
        (quota(cpu=("1", "0")), '"cpu":"2"'),
        (quota(pods=("3", "3")), '"pods":"4"'),
        (quota(requests_storage=("5Gi", "0")), '"requests.storage":"10737418240"'),
        (quota(secrets=("0", "0")), ""),
    ],
)
def test_a_quota_of_the_namespace(entry: dict[str, Any], short: str) -> None:
    result = quotas(entry)
    assert result.verdict is (Verdict.FAIL if short else Verdict.PASS)
    if short:
        assert result.next_command == (
            f"{KUBECTL} -n servepath patch resourcequota team-quota --type merge "
            f'-p \'{{"spec":{{"hard":{{{short}}}}}}}\''
        )


def test_gpus_count_in_a_quota() -> None:
    entry = quota()
    entry["status"] = {"hard": {"requests.nvidia.com/gpu": "1"}, "used": {"requests.nvidia.com/gpu": "1"}}
    assert quotas(entry).seen == "requests.nvidia.com/gpu: 1 are allowed, 2 are needed"
    assert quotas(entry, needs_of([deployment()])).verdict is Verdict.PASS, "what is replaced gives its share back"


@pytest.mark.parametrize(
    ("annotations", "returns"), [({}, True), ({"serving.kserve.io/stop": "true"}, False)], ids=["running", "stopped"]
)
def test_what_is_stopped_has_no_share_of_a_quota_to_give_back(annotations: dict[str, str], *, returns: bool) -> None:
    present = needs_of([inference_service(**annotations)])
    asked = needs_of([inference_service()])
    for name in ("requests.nvidia.com/gpu", "pods", "services"):
        entry = quota()
        entry["status"] = {"hard": {name: "1"}, "used": {name: "1"}}
        (result,) = check_resource_quotas(asked, [entry], present, KUBECTL)
        assert result.verdict is (Verdict.PASS if returns else Verdict.FAIL), name


def regional(limit: float, usage: float, pool: NodePool = L4) -> tuple[CheckResult, ...]:
    needs = needs_of([deployment()])
    growing = check_nodes(needs, [], KUBECTL, facts(pool))[1]
    metric = metric_of(L4)
    return check_regional_quota(growing, {metric: Quota(metric, limit, usage)}, facts(pool))


def test_the_regions_quota() -> None:
    assert verdicts(regional(2, 1)) == ["pass"]
    (short,) = regional(1, 1)
    assert short.seen == "1 of 1 are used"
    assert short.next_command == (
        "gcloud quotas preferences create --service=compute.googleapis.com --project=acme-models "
        "--quota-id=NVIDIA-L4-GPUS-per-project-region --dimensions=region=europe-west4 --preferred-value=2"
    )
    assert verdicts(regional(2, 1, replace(L4, is_spot=True))) == ["skip"], "Spot has a quota of its own"


@pytest.mark.parametrize(
    ("accelerator", "metric"),
    [
        ("nvidia-l4", "NVIDIA_L4_GPUS"),
        ("nvidia-tesla-t4", "NVIDIA_T4_GPUS"),
        ("nvidia-tesla-a100", "NVIDIA_A100_GPUS"),
        ("nvidia-a100-80gb", "NVIDIA_A100_80GB_GPUS"),
    ],
)
def test_the_name_of_a_gpus_quota(accelerator: str, metric: str) -> None:
    assert metric_of(NodePool(name="x", accelerator_type=accelerator)) == metric
    assert metric_of(NodePool(name="x", accelerator_type=accelerator, is_spot=True)) == f"PREEMPTIBLE_{metric}"


PLACE = ArtifactRepository("europe-west4-docker.pkg.dev", "acme-models/models", "europe-west4")


AR_IMAGE = f"{PLACE.registry}/acme-models/models/smol"
NEEDS = needs_of([deployment()])
SHUT = ("https://www.googleapis.com/auth/logging.write",)


def puller(pulled: str, **changed: Any) -> dict[str, Any]:
    """A node that has pulled an image."""
    seen = node(**changed)
    return {**seen, "status": {**seen["status"], "images": [{"names": [pulled], "sizeBytes": 1}]}}


@pytest.mark.parametrize(
    ("image", "pulled", "place", "verdict"),
    [
        (AR_IMAGE, f"{AR_IMAGE}@sha256:1", PLACE, Verdict.PASS),
        (AR_IMAGE, f"{PLACE.registry}/acme-models/models/engine:1", PLACE, Verdict.PASS),
        (AR_IMAGE, f"{PLACE.registry}/acme-models/models-old/smol@sha256:1", PLACE, Verdict.SKIP),
        (AR_IMAGE, f"{PLACE.registry}/somebody/else/smol@sha256:1", PLACE, Verdict.SKIP),
        (AR_IMAGE, f"{PLACE.registry}/somebody/else/smol@sha256:1", None, Verdict.SKIP),
        ("ghcr.io/acme/smol", "ghcr.io/acme/smol@sha256:1", None, Verdict.PASS),
        ("ghcr.io/acme/smol", "ghcr.io/acme/smol:1", None, Verdict.PASS),
        ("ghcr.io/acme/smol", "ghcr.io/acme/smol@sha256:1", PLACE, Verdict.PASS),
        ("ghcr.io/acme/smol", "ghcr.io/acme/smoll@sha256:1", None, Verdict.SKIP),
        ("ghcr.io/acme/smol", "ghcr.io/fluxcd/source-controller:v1", None, Verdict.SKIP),
        ("ghcr.io/acme/smol", "ghcr.io/fluxcd/source-controller:v1", PLACE, Verdict.SKIP),
        ("ghcr.io/acme/smol", "other.example/acme/smol@sha256:1", None, Verdict.SKIP),
    ],
)
def test_a_node_that_has_pulled_from_the_same_repository_is_proof(
    image: str, pulled: str, place: ArtifactRepository | None, verdict: Verdict
) -> None:
    assert check_registry(image, NEEDS, [node("empty"), puller(pulled)], facts(L4), place).verdict is verdict


@pytest.mark.parametrize(
    "changed",
    [
        {"gpus": 0},
        {"metadata": {"labels": {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}}},
        {"spec": {"taints": [{"key": "team", "value": "a", "effect": "NoSchedule"}]}},
        {"spec": {"unschedulable": True}},
    ],
    ids=["no GPU", "another GPU", "taint", "cordoned"],
)
def test_a_pull_by_a_node_that_the_pods_may_not_run_on_is_no_proof(changed: dict[str, Any]) -> None:
    image, pulled = "ghcr.io/acme/smol", "ghcr.io/acme/smol@sha256:1"
    needs = needs_of([deployment(nodeSelector=NAMED_L4), deployment("other", gpus=0)])
    ours = puller(pulled, metadata={"labels": NAMED_L4})
    assert check_registry(image, needs, [puller(pulled, **changed)]).verdict is Verdict.SKIP
    told = check_registry(image, needs, [puller(pulled, **changed), ours])
    assert (told.verdict, told.seen) == (Verdict.PASS, "node gpu-1 pulled from it")


def test_only_the_pools_that_the_pods_may_run_in_are_asked_for_their_rights() -> None:
    shut = replace(L4, name="other", accelerator_type="nvidia-tesla-t4", oauth_scopes=SHUT)
    needs = needs_of([deployment(nodeSelector=NAMED_L4)])
    assert check_registry(AR_IMAGE, needs, [], facts(shut, L4), PLACE).verdict is Verdict.SKIP
    told = check_registry(AR_IMAGE, needs, [], facts(shut, replace(L4, oauth_scopes=SHUT)), PLACE)
    assert told.seen == "the nodes of pool l4 have no scope to read images"
    assert " --accelerator type=nvidia-l4,count=1," in told.next_command


def test_only_the_repository_that_the_image_is_in_counts() -> None:
    shut = replace(L4, oauth_scopes=SHUT)
    assert check_registry("ghcr.io/acme/smol", NEEDS, [], facts(shut), PLACE).verdict is Verdict.SKIP


def test_the_rights_of_gkes_nodes() -> None:
    shut = replace(L4, oauth_scopes=SHUT)
    result = check_registry(AR_IMAGE, NEEDS, [], facts(shut), PLACE)
    assert result.verdict is Verdict.FAIL
    assert "--scopes=gke-default" in result.next_command
    reads = replace(shut, oauth_scopes=("https://www.googleapis.com/auth/devstorage.read_only",), service_account="n@x")
    unknown = check_registry(AR_IMAGE, NEEDS, [], facts(reads), PLACE)
    assert unknown.verdict is Verdict.SKIP
    assert unknown.next_command.endswith("--role=roles/artifactregistry.reader --member=serviceAccount:n@x")


PULL = 'failed to pull and unpack image "r.test/x@sha256:0": failed to resolve reference "r.test/x@sha256:0": '


@pytest.mark.parametrize(
    ("said", "verdict", "seen"),
    [
        ("r.test/x@sha256:0: not found", Verdict.PASS, "node n was answered by it"),
        (
            "failed to authorize: failed to fetch oauth token: unexpected status: 403 Forbidden",
            Verdict.FAIL,
            "let node n in",
        ),
        (
            "pulling from host r.test failed with status code [manifests sha256:0]: 401 Unauthorized",
            Verdict.FAIL,
            "let node n",
        ),
        (
            'failed to do request: Head "https://r.test/v2/": dial tcp 10.0.0.1:443: i/o timeout',
            Verdict.FAIL,
            "not reach it",
        ),
        ("failed to do request: dial tcp: lookup r.test: no such host", Verdict.FAIL, "does not reach it"),
    ],
)
def test_what_a_node_says_of_a_pull_of_nothing(said: str, verdict: Verdict, seen: str) -> None:
    result = judge_pull("n", PULL + said, "a node that pulls", "kubectl get events", "kubectl create secret")
    assert result.verdict is verdict
    assert seen in result.seen
    assert bool(result.next_command) is (verdict is Verdict.FAIL)


@pytest.mark.anyio
async def test_the_pod_that_asks_the_registry_is_held_to_the_nodes_that_the_workload_may_run_on(
    client: AsyncClient, world: World
) -> None:
    specs: list[Any] = []

    def kubelet(world: World) -> None:
        for (plural, _, _), pod in world.objects.items():
            if plural == "pods" and "status" not in pod:
                specs.append(pod["spec"])
                pod["spec"] = {**pod["spec"], "nodeName": "gpu-1"}
                waiting = {"reason": "ErrImagePull", "message": f"{PULL}r.test/x@sha256:0: not found"}
                told = {"name": "pull", "image": "", "imageID": "", "ready": False, "restartCount": 0}
                pod["status"] = {"containerStatuses": [{**told, "state": {"waiting": waiting}}]}

    world.reconcile = kubelet
    nobody = await probe_registry(client, "demo", "r.test/x", KUBECTL, nodes=())
    assert (nobody.verdict, specs) == (Verdict.SKIP, [])
    told = await probe_registry(client, "demo", "r.test/x", KUBECTL, nodes=("gpu-1", "gpu-2"))
    assert (told.verdict, told.seen) == (Verdict.PASS, "node gpu-1 was answered by it")
    terms = specs[0]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [term["matchFields"][0]["values"] for term in terms] == [["gpu-1"], ["gpu-2"]]
    assert not world.seen("pods"), "it is deleted again"


def test_all_that_is_missing_is_told_at_once() -> None:
    results = (
        there("a", "x", "y"),
        missing("node", "a node", "none", "gcloud one"),
        untold("c", "x", "y"),
        missing("quota", "two", "one", "gcloud two"),
    )
    assert [one.name for one in missing_of(results)] == ["node", "quota"]
    with pytest.raises(PromotionRefusedError, match="2 things are missing; nothing was changed") as caught:
        refuse_missing(results)
    for part in ("node: expected a node, found none", "fix: gcloud one", "fix: gcloud two"):
        assert part in str(caught.value)
    refuse_missing((results[0], results[2]))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    gpus=st.lists(st.integers(0, 4), max_size=5),
    wanted=st.lists(st.integers(0, 3), max_size=5),
)
def test_no_node_is_promised_twice(gpus: list[int], wanted: list[int]) -> None:
    nodes = [node(f"n{index}", count) for index, count in enumerate(gpus)]
    needs = needs_of([deployment(f"p{index}", count) for index, count in enumerate(wanted)])
    rooms = rooms_of(nodes, [], needs)
    results, _ = check_nodes(needs, rooms, KUBECTL)
    assert len(results) == len(wanted)
    assert all(amount >= Decimal(0) for room in rooms for amount in room.free.values())


@pytest.mark.anyio
@pytest.mark.parametrize("absent", [(missing("rights", "get of configmaps", "no get", "kubectl create"),), ()])
async def test_what_keeps_a_plan_from_reading_is_told_with_all_the_rest(
    client: AsyncClient, cluster: Cluster, world: World, absent: tuple[CheckResult, ...]
) -> None:
    world.fault = lambda *_: 403

    async def look(_: ServingSpec) -> tuple[CheckResult, ...]:
        return (there("a", "x", "y"), *absent)

    image = "registry.test/x@sha256:" + "a" * 64
    request = PromotionRequest(cluster, image, "x", "demo", "smol", "smol", image, GKE, preflight=look)
    expected = PromotionRefusedError if absent else ClusterError
    with pytest.raises(expected, match="fix: kubectl create" if absent else "Forbidden"):
        await make_plan(client, request)
