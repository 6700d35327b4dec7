"""A promotion as the cluster remembers it: what was promoted, by whom, how far it came, and what became of it.

```text
running: plan -> copy -> deploy -> gate -> shift -> verify -> succeeded
           |       |        |       |       |        |
           +-------+--------+-------+-------+--------+-----> undoing -> rolled-back
```

A record that is neither `succeeded` nor `rolled-back`, and whose Lease has run out, is of a process that was killed:
the next one finishes it (it was at `verify`: all traffic has been moved) or undoes it (it was anywhere before).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from servepath.errors import ClusterError
from servepath.serving.model import AutoscalerClass, Autoscaling, Profile, ServingPath, ServingSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "servepath.promotion/v1"


class Stage(StrEnum):
    """The stages of a promotion, in their order."""

    PLAN = "plan"
    COPY = "copy"
    DEPLOY = "deploy"
    GATE = "gate"
    SHIFT = "shift"
    VERIFY = "verify"


class Strategy(StrEnum):
    """How a version comes into the place of the one before.

    `first`: there is none. `canary`: it runs beside it and gets its share of the traffic step by step. `replace`: it
    is put in its place, because only one can run or because the one before does not serve.
    """

    FIRST = "first"
    CANARY = "canary"
    REPLACE = "replace"


class State(StrEnum):
    """What became of a promotion."""

    RUNNING = "running"
    UNDOING = "undoing"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled-back"


class Remedy(StrEnum):
    """What is to be done about a promotion whose process is gone."""

    NONE = "none"
    FINISH = "finish"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Record:
    """One promotion.

    Attributes:
        number: 1 for the first of its release; never used again.
        spec: what is to serve; its modelcar is the one in the cluster's registry.
        path: how it is served.
        source: where the modelcar came from: `host/repository@sha256:…`.
        who: who asked for it: the user that the API server knows, and the machine's.
        started_at: RFC 3339, UTC.
        strategy: how it comes into the place of what serves.
        stage: the stage that is under way, or that was the last.
        state: what became of it.
        ended_at: RFC 3339, UTC; empty while it is under way.
        result: in words: why it was rolled back, or what it came to.
        replaces: number of the promotion that served before, 0 for none.
        back_to: of a rollback, the number of the promotion that it goes back to; 0 for a promotion.
        report_digest: sha256 of the `report.json` that vouches for the digest, empty for none.
        lock_digest: sha256 of `manifests/lock.yaml`.
        manifests_digest: digest of the manifests, as `servepath.manifests.manifests_digest` gives it.
        git_revision: of servepath.
    """

    number: int
    spec: ServingSpec
    path: ServingPath
    source: str
    who: str
    started_at: str
    strategy: Strategy = Strategy.FIRST
    stage: Stage = Stage.PLAN
    state: State = State.RUNNING
    ended_at: str = ""
    result: str = ""
    replaces: int = 0
    back_to: int = 0
    report_digest: str = ""
    lock_digest: str = ""
    manifests_digest: str = ""
    git_revision: str = ""

    @property
    def digest(self) -> str:
        """The digest that is promoted."""
        return self.spec.modelcar_reference.partition("@")[2]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done."""
        return self.state in {State.SUCCEEDED, State.ROLLED_BACK}

    @property
    def remedy(self) -> Remedy:
        """What is to be done when its process is gone."""
        if self.is_over:
            return Remedy.NONE
        if self.state is State.RUNNING and self.stage is Stage.VERIFY:
            return Remedy.FINISH
        return Remedy.UNDO


def advance(record: Record, stage: Stage) -> Record:
    """Begin the next stage.

    Raises:
        ValueError: it is not the next one, or the promotion is not running.
    """
    order = tuple(Stage)
    if record.state is not State.RUNNING or order.index(stage) != order.index(record.stage) + 1:
        raise ValueError(f"{record.state}({record.stage}) does not lead to {stage}")
    return replace(record, stage=stage)


def begin_undo(record: Record, reason: str) -> Record:
    """Begin to roll back; the reason of the first time is kept.

    Raises:
        ValueError: it is over.
    """
    if record.is_over:
        raise ValueError(f"{record.state} does not lead to {State.UNDOING}")
    return replace(record, state=State.UNDOING, result=record.result or reason)


def end(record: Record, state: State, at: str, result: str = "") -> Record:
    """Say what became of it.

    Args:
        record: the promotion.
        state: `succeeded`, from `verify`, or `rolled-back`, from `undoing`.
        at: RFC 3339, UTC.
        result: in words; what it says already when empty.

    Raises:
        ValueError: its state does not lead there.
    """
    wanted = {State.SUCCEEDED: (State.RUNNING, Stage.VERIFY), State.ROLLED_BACK: (State.UNDOING, record.stage)}
    if wanted.get(state) != (record.state, record.stage):
        raise ValueError(f"{record.state}({record.stage}) does not lead to {state}")
    return replace(record, state=state, ended_at=at, result=result or record.result)


def to_json(record: Record) -> dict[str, Any]:
    """Give the record as plain JSON values."""
    return {"schema": SCHEMA, **asdict(record), "digest": record.digest}


def from_json(document: Mapping[str, Any], where: str) -> Record:
    """Read a record back.

    Raises:
        ClusterError: it is not a record of this schema.
    """
    try:
        return _read(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ClusterError(
            f"not a promotion record: {type(error).__name__} {error}",
            where=where,
            expected=f"a record of schema {SCHEMA}, as this version of servepath writes it",
        ) from error


def _read(document: Mapping[str, Any]) -> Record:
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}")
    values = {name: document[name] for name in Record.__slots__}
    profile: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values["spec"]["profile"].items()
    }
    if (scaling := profile.get("autoscaling")) is not None:  # a record of before there was one has none
        autoscaler = AutoscalerClass(scaling["autoscaler"])
        profile["autoscaling"] = Autoscaling(**(scaling | {"autoscaler": autoscaler}))
    values["spec"] = ServingSpec(**(values["spec"] | {"profile": Profile(**profile)}))
    values["path"], values["stage"] = ServingPath(values["path"]), Stage(values["stage"])
    values["state"], values["strategy"] = State(values["state"]), Strategy(values["strategy"])
    return Record(**values)
