"""What a stage has learnt: checks and stage timings, as plain frozen values that the report writes down."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The outcome of a check or of a whole run."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One named check.

    Attributes:
        name: the check's name, stable across versions: it is the JUnit test name.
        subject: what was checked: `cluster`, `raw`, `kserve` or `both`.
        verdict: `pass`, `fail`, or `skip` with the reason in `seen`.
        expected: what was expected, in words.
        seen: what was seen, in words.
        duration_s: how long the check took, in seconds.
        next_command: on failure, the command to type next.
    """

    name: str
    subject: str
    verdict: Verdict
    expected: str
    seen: str
    duration_s: float
    next_command: str = ""


@dataclass(frozen=True, slots=True)
class StageTiming:
    """One stage of a run: its name, when it began after the run's start, and how long it took, in seconds."""

    name: str
    start_s: float
    duration_s: float
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What ran, and where.

    Attributes:
        git_revision: the revision of servepath, `unknown` outside a checkout.
        lock_digest: sha256 of `manifests/lock.yaml`.
        started_at: RFC 3339, UTC.
        command: the command line, secrets never included.
        node: facts of the node: CPU model, cores, memory, kernel, kubelet version.
        peak_memory_bytes: the most memory that this process of servepath held (`ru_maxrss`); 0 when it is not known.
        manifests_digest: digest of the manifests, as `servepath.manifests.manifests_digest` gives it.
    """

    git_revision: str
    lock_digest: str
    started_at: str
    command: str
    node: dict[str, Any] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    manifests_digest: str = ""
