"""Google's own clients against a local server: what is read, and what each failure tells to do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud.container_v1.types import Cluster

from ci.node.pki import service_account_key
from servepath.errors import ClusterError, RegistryError, UsageError
from servepath.gke import credentials
from servepath.gke.apis import read_cluster, read_quotas, read_repository
from servepath.gke.credentials import application_default
from servepath.gke.facts import facts_of
from servepath.gke.model import GkeTarget, GoogleOptions, NodePool, Quota
from tests.unit.gke.google_server import (
    ACCOUNT,
    CLUSTER,
    PROJECT,
    REGION,
    REPOSITORY,
    ZONE,
    Answer,
    Google,
    failure,
    federated,
)

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.errors import ServepathError

pytestmark = pytest.mark.anyio

CLUSTER_PATH = f"/v1/projects/{PROJECT}/locations/{REGION}/clusters/models"
REPOSITORY_PATH = f"/v1/projects/{PROJECT}/locations/{REGION}/repositories/models"
IMPERSONATION = f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
MEMBER = f"serviceAccount:{ACCOUNT}"
STS = "/sts/v1/token"


async def test_a_federated_identity_reads_a_cluster(google: Google, options: GoogleOptions, target: GkeTarget) -> None:
    facts = await read_cluster(await application_default(options), target)
    assert google.asked == ["/subject", STS, IMPERSONATION, CLUSTER_PATH]
    assert (facts.server, facts.version) == ("https://34.1.2.3", "1.34.1-gke.100")
    assert facts.certificate_authority == CLUSTER["masterAuth"]["clusterCaCertificate"]
    assert facts.pools == (
        NodePool(name="default", machine_type="e2-standard-4", disk_size_bytes=100 * 10**9),
        NodePool(
            name="l4",
            machine_type="g2-standard-8",
            accelerator_type="nvidia-l4",
            accelerators=1,
            is_autoscaled=True,
            max_nodes=4,
            is_spot=True,
            streams_images=True,
            disk_size_bytes=200 * 10**9,
            taints=("nvidia.com/gpu=present:NoSchedule",),
            oauth_scopes=("https://www.googleapis.com/auth/devstorage.read_only",),
        ),
    )


@pytest.mark.parametrize(
    ("scaling", "limits"),
    [
        ({"minNodeCount": 1, "maxNodeCount": 2}, (2, 4)),
        ({"totalMinNodeCount": 1, "totalMaxNodeCount": 3}, (1, 3)),
    ],
    ids=["per zone", "of the pool"],
)
def test_the_limits_of_a_pool_are_those_of_all_its_zones(
    target: GkeTarget, scaling: dict[str, int], limits: tuple[int, int]
) -> None:
    config = {"preemptible": True, "labels": {"team": "a"}}
    pool = {"name": "x", "config": config, "autoscaling": {"enabled": True, **scaling}}
    (read,) = facts_of(Cluster.from_json(json.dumps(CLUSTER | {"nodePools": [pool]})), target).pools
    assert (read.min_nodes, read.max_nodes) == limits
    assert (read.is_spot, read.is_preemptible, read.labels) == (False, True, {"team": "a"})


async def test_a_federated_identity_needs_no_service_account(
    google: Google, options: GoogleOptions, target: GkeTarget, base_url: str, tmp_path: Path
) -> None:
    federated(tmp_path, base_url, impersonates=False)
    assert (await read_cluster(await application_default(options), target)).target == target
    assert google.asked == ["/subject", STS, CLUSTER_PATH]


async def test_a_zone_has_a_region() -> None:
    assert GkeTarget(PROJECT, ZONE, "models").region == REGION
    assert GkeTarget(PROJECT, REGION, "models").region == REGION


@pytest.mark.parametrize(
    ("project", "location", "name"),
    [("A", REGION, "models"), (PROJECT, "europe", "models"), (PROJECT, REGION, "models/../x"), (PROJECT, "", "m")],
)
def test_what_cannot_be_a_name_is_refused(project: str, location: str, name: str) -> None:
    with pytest.raises(UsageError):
        GkeTarget(project, location, name)


@pytest.mark.parametrize(
    ("path", "answer", "complaint", "command"),
    [
        (
            CLUSTER_PATH,
            failure(404, "NOT_FOUND", "Not found: clusters/models."),
            "clusters/models: Not found",
            f"gcloud container clusters list --project {PROJECT}",
        ),
        (
            CLUSTER_PATH,
            failure(
                403, "PERMISSION_DENIED", 'Required "container.clusters.get" permission(s)', "IAM_PERMISSION_DENIED"
            ),
            "expected the role roles/container.clusterViewer",
            f"gcloud projects add-iam-policy-binding {PROJECT} --role=roles/container.clusterViewer --member={MEMBER}",
        ),
        (
            CLUSTER_PATH,
            failure(403, "PERMISSION_DENIED", "API has not been used", "SERVICE_DISABLED", "gkehub.googleapis.com"),
            "the API enabled",
            "gcloud services enable gkehub.googleapis.com --project acme-models",
        ),
        (
            CLUSTER_PATH,
            failure(403, "PERMISSION_DENIED", "Quota exceeded for quota metric 'Read requests'", "RATE_LIMIT_EXCEEDED"),
            "Quota exceeded",
            "gcloud auth application-default set-quota-project acme-models",
        ),
        (
            STS,
            (400, {"error": "invalid_target", "error_description": "The audience does not match."}),
            "invalid_target: The audience does not match",
            "gcloud iam workload-identity-pools providers describe servepath --workload-identity-pool=github",
        ),
        (
            IMPERSONATION,
            failure(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied"),
            "iam.serviceAccounts.getAccessToken",
            "gcloud iam workload-identity-pools",
        ),
    ],
    ids=["absent", "forbidden", "disabled", "quota", "audience", "impersonation"],
)
async def test_a_refusal_says_what_to_do(
    google: Google,
    options: GoogleOptions,
    target: GkeTarget,
    path: str,
    answer: Answer,
    complaint: str,
    command: str,
) -> None:
    google.faults[path] = [answer] * 3
    with pytest.raises(ClusterError, match="next: ") as caught:
        await read_cluster(await application_default(options), target)
    assert complaint in str(caught.value)
    assert caught.value.next_command.startswith(command)
    assert len(google.faults[path]) == 2, "a refusal is not asked again"


async def test_a_wrong_audience_is_refused_by_the_exchange_itself(
    options: GoogleOptions, target: GkeTarget, base_url: str, tmp_path: Path
) -> None:
    federated(
        tmp_path,
        base_url,
        audience="//iam.googleapis.com/projects/9/locations/global/workloadIdentityPools/x/providers/y",
    )
    with pytest.raises(ClusterError, match="invalid_target") as caught:
        await read_cluster(await application_default(options), target)
    assert "providers describe y --workload-identity-pool=x --location=global --project=9" in caught.value.next_command


@pytest.mark.parametrize("path", [STS, IMPERSONATION, CLUSTER_PATH, "/subject"])
@pytest.mark.parametrize("status", [503, 429, 500])
async def test_an_outage_is_tried_again(
    google: Google, options: GoogleOptions, target: GkeTarget, path: str, status: int
) -> None:
    google.faults[path] = [failure(status, "UNAVAILABLE", "try later")] * 2
    facts = await read_cluster(await application_default(options), target)
    assert facts.version
    assert google.asked.count(path) == 3


@pytest.mark.parametrize("path", [STS, CLUSTER_PATH])
async def test_an_outage_that_lasts_ends(google: Google, options: GoogleOptions, target: GkeTarget, path: str) -> None:
    google.faults[path] = [failure(503, "UNAVAILABLE", "try later")] * 9
    with pytest.raises(ClusterError, match=r"3 attempts.*503"):
        await read_cluster(await application_default(options), target)


async def test_nobody_answers(options: GoogleOptions, target: GkeTarget, nobody: str) -> None:
    deaf = replace(options, container=f"http://{nobody}")
    with pytest.raises(ClusterError, match="3 attempts: ConnectionError"):
        await read_cluster(await application_default(deaf), target)


async def test_a_token_that_expired_is_renewed_before_it_is_used(
    google: Google, options: GoogleOptions, target: GkeTarget
) -> None:
    google.lifetime_s = 0
    found = await application_default(options)
    first = await found.token()
    google.good.clear()
    google.lifetime_s = 3600
    assert (await read_cluster(found, target)).version
    assert first.value not in google.good
    assert first.value not in repr(first) + repr(found)


async def test_a_key_file_is_refused_unless_allowed(
    options: GoogleOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = service_account_key(tmp_path).read_text()
    document = {
        "type": "service_account",
        "client_email": ACCOUNT,
        "private_key": key,
        "token_uri": "http://127.0.0.1:1",
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps(document))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(ClusterError, match="the key file of promoter@") as caught:
        await application_default(options)
    assert caught.value.next_command == (
        f"gcloud auth application-default login --impersonate-service-account={ACCOUNT}"
    )
    assert (await application_default(replace(options, allow_key_file=True))).raw.service_account_email == ACCOUNT


async def test_no_credentials_at_all(options: GoogleOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.raises(ClusterError, match="not found") as caught:
        await application_default(options)
    assert caught.value.next_command == "gcloud auth application-default login"


async def test_absent_libraries_are_named(options: GoogleOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LIBRARIES", ("google_is_not_here",))
    with pytest.raises(ClusterError, match="not installed: google_is_not_here") as caught:
        await application_default(options)
    assert caught.value.next_command == "pip install 'servepath[gke]'"


def test_google_is_imported_only_when_it_is_asked() -> None:
    program = "import sys, servepath.gke.connect; print([name for name in sys.modules if name.startswith('google')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def answered(**changed: Any) -> Any:
    """What the client makes of an answer."""
    return Cluster.from_json(json.dumps({**CLUSTER, **changed}), ignore_unknown_fields=True)


DNS = {"dnsEndpointConfig": {"endpoint": "gke-1.europe-west4.gke.goog", "allowExternalTraffic": True}}


@pytest.mark.parametrize(
    ("endpoint", "config", "server"),
    [
        ("", {**DNS, "ipEndpointsConfig": {"enabled": True}}, "https://34.1.2.3"),
        ("", {**DNS, "ipEndpointsConfig": {"enabled": False}}, "https://gke-1.europe-west4.gke.goog"),
        ("dns", DNS, "https://gke-1.europe-west4.gke.goog"),
        ("ip", DNS, "https://34.1.2.3"),
    ],
)
def test_the_api_server_is_reached_by_address_or_name(
    endpoint: str, config: dict[str, Any], server: str, target: GkeTarget
) -> None:
    facts = facts_of(answered(controlPlaneEndpointsConfig=config), target, endpoint)
    assert facts.server == server
    assert bool(facts.certificate_authority) == server.endswith("3"), "a public authority signs the name's certificate"


@pytest.mark.parametrize(
    ("changed", "endpoint", "complaint"),
    [
        ({"status": "PROVISIONING"}, "", "the cluster is PROVISIONING"),
        ({"status": "ERROR", "statusMessage": "no more addresses"}, "", "ERROR: no more addresses"),
        ({}, "dns", "no DNS endpoint"),
        ({"endpoint": ""}, "", "no reachable endpoint"),
    ],
)
def test_a_cluster_that_cannot_be_used(
    changed: dict[str, Any], endpoint: str, complaint: str, target: GkeTarget
) -> None:
    with pytest.raises(ClusterError, match=complaint) as caught:
        facts_of(answered(**changed), target, endpoint)
    assert "--project acme-models --location europe-west4" in caught.value.next_command


def test_node_auto_provisioning_has_limits(target: GkeTarget) -> None:
    limits = [{"resourceType": "cpu", "maximum": "64"}, {"resourceType": "nvidia-l4", "maximum": "4"}]
    scaling = {"enableNodeAutoprovisioning": True, "resourceLimits": limits}
    assert facts_of(answered(autoscaling=scaling), target).provisioned == {"nvidia-l4": 4}
    assert facts_of(answered(autoscaling={"resourceLimits": limits}), target).provisioned == {}


@pytest.mark.parametrize("path", [f"{PROJECT}/models", f"{REGION}-docker.pkg.dev/{PROJECT}/models"])
async def test_a_repository_in_the_clusters_region(options: GoogleOptions, target: GkeTarget, path: str) -> None:
    found = await read_repository(await application_default(options), target, path)
    assert (found.registry, found.path) == (f"{REGION}-docker.pkg.dev", f"{PROJECT}/models")


async def test_the_registry_that_google_names_is_used(
    google: Google, options: GoogleOptions, target: GkeTarget
) -> None:
    google.resources[REPOSITORY_PATH] = {**REPOSITORY, "registryUri": "127.0.0.1:5001/acme-models/models"}
    found = await read_repository(await application_default(options), target, f"{PROJECT}/models")
    assert (found.registry, found.path) == ("127.0.0.1:5001", "acme-models/models")


@pytest.mark.parametrize(
    ("path", "answer", "complaint", "command"),
    [
        ("models", None, "names no repository", ""),
        ("a/b/c/d", None, "names no repository", ""),
        (f"us-docker.pkg.dev/{PROJECT}/models", None, "not in the cluster's region", "gcloud artifacts repositories"),
        (
            f"{PROJECT}/absent",
            None,
            "Not found",
            "gcloud artifacts repositories create absent --repository-format=docker",
        ),
        (
            f"{PROJECT}/models",
            {"format": "PYTHON"},
            "format PYTHON",
            "gcloud artifacts repositories create models-docker",
        ),
        (
            f"{PROJECT}/models",
            {"format": "DOCKER", "mode": "REMOTE_REPOSITORY"},
            "REMOTE_REPOSITORY",
            "gcloud artifacts",
        ),
    ],
    ids=["no name", "too long", "region", "absent", "format", "proxy"],
)
async def test_a_repository_that_cannot_take_the_image(
    google: Google,
    options: GoogleOptions,
    target: GkeTarget,
    path: str,
    answer: dict[str, Any] | None,
    complaint: str,
    command: str,
) -> None:
    if answer is not None:
        google.resources[REPOSITORY_PATH] = answer
    with pytest.raises(RegistryError, match=complaint) as caught:
        await read_repository(await application_default(options), target, path)
    error: ServepathError = caught.value
    assert error.next_command.startswith(command)


async def test_quotas(google: Google, options: GoogleOptions, target: GkeTarget) -> None:
    found = await application_default(options)
    assert await read_quotas(found, target) == {"NVIDIA_L4_GPUS": Quota("NVIDIA_L4_GPUS", 4, 1)}
    path = f"/compute/v1/projects/{PROJECT}/regions/{REGION}"
    google.faults[path] = [failure(403, "PERMISSION_DENIED", "Required 'compute.regions.get' permission")]
    with pytest.raises(ClusterError, match=r"roles/compute\.viewer"):
        await read_quotas(found, target)
    google.faults[path] = [failure(503, "UNAVAILABLE", "later")]
    assert await read_quotas(found, target)
