"""Both serving paths on an API server without room for them: everything is made, and no pod ever runs."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from servepath.serving.deploy import apply_kserve, apply_raw
from servepath.serving.model import Profile, ServingPath, ServingSpec

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

TIMEOUT_S = 60
IMAGE = "127.0.0.1:5000/servepath/none@sha256:" + "a" * 64
# More cores than any node has, and a budget that is spent soon: no completion ever comes.
HUGE = Profile("cpu-small", "9000", "9000", "1Gi", "1Gi", 1, 1024, 3, 60)
DEPLOYMENT = {ServingPath.RAW: "smol-raw", ServingPath.KSERVE: "smol-kserve-predictor"}


def unschedulable(prefix: str) -> ServingSpec:
    """Give the spec of a model in a namespace of its own."""
    return ServingSpec(f"{prefix}-{uuid.uuid4().hex[:8]}", "smol", "smol", IMAGE, IMAGE, HUGE)


async def apply(client: AsyncClient, cluster: Cluster, spec: ServingSpec, path: ServingPath) -> None:
    """Apply one path."""
    if path is ServingPath.RAW:
        await apply_raw(client, cluster, spec, "key-of-the-test")
    else:
        await apply_kserve(client, cluster, spec, "key-of-the-test")
