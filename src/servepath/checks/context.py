"""What a check is given, and what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from servepath.evidence import Verdict
from servepath.serving.model import Endpoint, ServingSpec

if TYPE_CHECKING:
    import httpx
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What was asked for and where it should be found: the input of the smoke checks.

    Attributes:
        cluster: the cluster and its gateway.
        spec: what both paths were asked to serve.
        modelcar_digest: `sha256:…` of the modelcar that was built.
        raw: the endpoint of the raw path, None where it was not deployed.
        kserve: the endpoint of the KServe path, None where it was not deployed.
        expected_answer: word that the completion of "The capital of France is" must hold; empty for a model that
            cannot know it, such as one with random weights.
        timeout_s: the longest that one check may take, in seconds.
        concurrency: how many checks run at once; the engines share the machine, so few.
    """

    cluster: Cluster
    spec: ServingSpec
    modelcar_digest: str
    raw: Endpoint | None = None
    kserve: Endpoint | None = None
    expected_answer: str = "Paris"
    timeout_s: float = 120.0
    concurrency: int = 2


@dataclass(frozen=True, slots=True)
class Tools:
    """The context, and the two clients that every check shares."""

    context: CheckContext
    kube: AsyncClient
    http: httpx.AsyncClient


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        verdict: the outcome.
        seen: what was seen, in words.
        expected: what was expected, in words; empty for the first line of the check's docstring.
        next_command: on failure, the command to type next; it never holds a key.
    """

    verdict: Verdict
    seen: str
    expected: str = ""
    next_command: str = ""


ClusterCheck: TypeAlias = Callable[[Tools], Awaitable[Finding]]
PathCheck: TypeAlias = Callable[[Tools, Endpoint], Awaitable[Finding]]
PairCheck: TypeAlias = Callable[[Tools, Endpoint, Endpoint], Awaitable[Finding]]


def finding(problems: list[str], seen: str, next_command: str, *, expected: str = "") -> Finding:
    """Give a pass with `seen` when there is no problem, else a failure that lists every problem."""
    if problems:
        return Finding(Verdict.FAIL, "; ".join(problems), expected, next_command)
    return Finding(Verdict.PASS, seen, expected)
