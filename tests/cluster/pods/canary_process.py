"""A canary in a process of its own, so that a test can kill it: what to do pickled on stdin, progress on stdout."""

from __future__ import annotations

import pickle
import sys

import anyio

from servepath.canary.run import run_canary
from tests.cluster.pods.test_canary import PLAN


def main() -> None:
    """Lead the canary to its end."""
    cluster, spec = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the test

    def say(words: str) -> None:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()

    async def lead() -> None:
        await run_canary(cluster, spec, PLAN, progress=say)

    anyio.run(lead)


if __name__ == "__main__":
    main()
