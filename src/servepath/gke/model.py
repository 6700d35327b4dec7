"""The values of a GKE cluster: which one, what it has, and how Google's services are reached."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servepath.errors import UsageError
from servepath.modelcar.registry.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

_ZONE = re.compile(r"^([a-z]+-[a-z]+\d+)-[a-z]$")
_REGION = re.compile(r"^[a-z]+-[a-z]+\d+$")
_PROJECT = re.compile(r"^(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$")
_NAME = re.compile(r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")
_ENDPOINTS = ("", "ip", "dns")


@dataclass(frozen=True, slots=True)
class GkeTarget:
    """One cluster of one project.

    Attributes:
        project: the project's ID, not its number.
        location: a region such as `europe-west4` or a zone such as `europe-west4-a`.
        name: the cluster's name.

    Raises:
        UsageError: one of them cannot be such a name.
    """

    project: str
    location: str
    name: str

    def __post_init__(self) -> None:
        """Refuse what cannot be a name: it would become part of an address."""
        for field_name, pattern, value in (
            ("project", _PROJECT, self.project),
            ("cluster", _NAME, self.name),
        ):
            if not pattern.match(value):
                raise UsageError(f"{value!r} is no {field_name} name", where=f"--gke-{field_name}")
        if not (_ZONE.match(self.location) or _REGION.match(self.location)):
            raise UsageError(
                f"{self.location!r} is neither a region nor a zone",
                where="--gke-location",
                expected="such as europe-west4 or europe-west4-a",
                next_command=f"gcloud container clusters list --project {self.project}",
            )

    @property
    def region(self) -> str:
        """The region: that of its zone for a zonal cluster."""
        zone = _ZONE.match(self.location)
        return zone[1] if zone else self.location

    @property
    def resource(self) -> str:
        """The name of the cluster in Google's API."""
        return f"projects/{self.project}/locations/{self.location}/clusters/{self.name}"

    @property
    def gcloud(self) -> str:
        """The options that name it to `gcloud container`."""
        return f"--project {self.project} --location {self.location}"


@dataclass(frozen=True, slots=True)
class GoogleOptions:
    """How Google's services are reached.

    Attributes:
        allow_key_file: whether the key file of a service account is accepted as credentials.
        endpoint: `ip` or `dns`, how the API server is reached; empty for its address unless that is disabled.
        container: base URL of the Kubernetes Engine API, such as that of a private service connect.
        artifact_registry: base URL of the Artifact Registry API.
        compute: base URL of the Compute Engine API, asked for quotas alone.
        timeout_s: bound of each request, in seconds.
        look_every_s: how often the age of the access token is looked at, in seconds of the wall clock: a laptop that
            slept finds out soon that its token expired.
        retry: bounds of retries.
    """

    allow_key_file: bool = False
    endpoint: str = ""
    container: str = "https://container.googleapis.com"
    artifact_registry: str = "https://artifactregistry.googleapis.com"
    compute: str = "https://compute.googleapis.com"
    timeout_s: float = 30.0
    look_every_s: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        """Refuse an endpoint that is neither."""
        if self.endpoint not in _ENDPOINTS:
            raise UsageError(f"no endpoint is {self.endpoint!r}", where="--gke-endpoint", expected="ip or dns")


@dataclass(frozen=True, slots=True)
class NodePool:
    """What a pool's nodes are, and how many there may be.

    Attributes:
        name: its name.
        machine_type: such as `g2-standard-8`.
        accelerator_type: such as `nvidia-l4`, empty without one.
        accelerators: accelerators of one node.
        is_autoscaled: whether the cluster's autoscaler adds nodes.
        min_nodes: the fewest nodes in all zones together; 0 where it is not autoscaled.
        max_nodes: the most, likewise.
        is_spot: whether its machines are Spot VMs, which may be taken away at any time.
        is_preemptible: whether they are of the older kind that ends after a day, to which Spot's label is not given.
        labels: what its owner labels the nodes with.
        streams_images: whether Image streaming is on.
        preloads_images: whether secondary boot disks hold container images.
        disk_size_bytes: the boot disk, which holds the images.
        taints: `key=value:Effect` of each node.
        oauth_scopes: what the nodes' own credentials may ask for.
        service_account: whose credentials pull the images; `default` is Compute Engine's.
    """

    name: str
    machine_type: str = ""
    accelerator_type: str = ""
    accelerators: int = 0
    is_autoscaled: bool = False
    min_nodes: int = 0
    max_nodes: int = 0
    is_spot: bool = False
    is_preemptible: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    streams_images: bool = False
    preloads_images: bool = False
    disk_size_bytes: int = 0
    taints: tuple[str, ...] = ()
    oauth_scopes: tuple[str, ...] = ()
    service_account: str = "default"


@dataclass(frozen=True, slots=True)
class GkeFacts:
    """What Google says of a cluster.

    Attributes:
        target: which one.
        server: URL of its API server.
        certificate_authority: base64 of the PEM that signs the API server's certificate, empty where a public one does.
        version: of the control plane, such as `1.34.1-gke.100`.
        is_autopilot: whether Google makes the nodes.
        pools: its node pools; those of Autopilot are Google's own.
        provisioned: the most accelerators of each type that node auto-provisioning may make, empty where it is off.
    """

    target: GkeTarget
    server: str
    certificate_authority: str = field(repr=False)
    version: str
    is_autopilot: bool = False
    pools: tuple[NodePool, ...] = ()
    provisioned: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArtifactRepository:
    """A Docker repository of Artifact Registry.

    Attributes:
        registry: `host[:port]`, such as `europe-west4-docker.pkg.dev`.
        path: `PROJECT/REPOSITORY`, in which images are repositories.
        location: its region.
    """

    registry: str
    path: str
    location: str

    def reference(self, name: str, image: str) -> str:
        """Give the reference under which an image, named by digest, is in this repository."""
        return f"{self.registry}/{self.path}/{name}@{image.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota of Compute Engine in one region: how much may be used, and how much is."""

    metric: str
    limit: float
    usage: float
