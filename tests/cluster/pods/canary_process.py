"""A canary in a process of its own, so that a test can kill it: cluster and spec on stdin, progress on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from servepath.canary.run import run_canary
from servepath.cluster.model import Cluster
from servepath.serving.model import Profile, ServingSpec
from tests.cluster.pods.test_canary import PLAN


def main() -> None:
    """Lead the canary to its end."""
    call = json.loads(sys.stdin.readline())
    cluster = Cluster(**{**call["cluster"], "kubeconfig": Path(call["cluster"]["kubeconfig"])})
    profile = call["spec"]["profile"]
    spec = ServingSpec(
        **{**call["spec"], "profile": Profile(**{**profile, "engine_args": tuple(profile["engine_args"])})}
    )

    def say(words: str) -> None:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()

    async def lead() -> None:
        await run_canary(cluster, spec, PLAN, progress=say)

    anyio.run(lead)


if __name__ == "__main__":
    main()
