"""What a promotion is asked for, and what it plans to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from servepath.bench.model import BenchPlan
from servepath.canary.model import CanaryPlan
from servepath.cluster.model import LeaseTimes
from servepath.modelcar.registry.client import RegistryOptions
from servepath.modelcar.registry.reference import parse_pinned
from servepath.serving.model import ServingPath, ServingSpec

if TYPE_CHECKING:
    from servepath.bench.slo import Slo
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult
    from servepath.platform.lock import Lock
    from servepath.promotion.copying import CopyPlan
    from servepath.promotion.proof import Proof
    from servepath.promotion.record import Strategy
    from servepath.promotion.signature import SignaturePolicy
    from servepath.serving.model import Profile

Preflight: TypeAlias = Callable[["ServingSpec"], Awaitable[tuple["CheckResult", ...]]]
"""Looks at the cluster before anything is created; a failed check is a missing thing with the command that fixes it."""


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What a candidate must show before any client meets it.

    Attributes:
        bench: the design of its benchmark, with the share of requests that may fail.
        slo: its objectives, None for none.
        max_slowdown_percent: a slowdown whose whole interval lies beyond this, against what was promoted last, fails.
        expected_answer: word of the answer to "The capital of France is"; empty for a model that cannot know it.
        measured: whether it is measured at all; a rollback goes back to what was measured before.
    """

    bench: BenchPlan = field(default_factory=BenchPlan)
    slo: Slo | None = None
    max_slowdown_percent: float = 5.0
    expected_answer: str = "Paris"
    measured: bool = True


@dataclass(frozen=True, slots=True)
class PromotionRequest:
    """What to promote, and where to.

    Attributes:
        cluster: where; its registry is what the nodes pull from.
        source: the modelcar where it is now, `host/repository@sha256:…`.
        repository: its repository in the cluster's registry.
        namespace: where it is deployed.
        name: the release: the base name of its objects.
        served_model_name: the `model` of the OpenAI API.
        engine_image: `host/repository@sha256:…`.
        profile: what one engine may use.
        path: how it is served.
        replace: put it in the place of what serves, also where both could run beside each other.
        gate: what it must show first.
        canary: how it gets its share of the traffic where it runs beside what serves, None for all of it at once.
        usd_per_hour: price of one engine, in US dollars per hour, None when it is not known.
        stop_after: stop it when it has been promoted: nothing that costs money is left running.
        back_to: the number of the promotion that this one goes back to, 0 for none.
        proof: the report that vouches for it, None for none.
        lock: `manifests/lock.yaml`, which says what engines of other hardware are of one release.
        api_key: the key of an engine that is deployed for the first time; the next versions keep its key.
        signature: whose signature it must have, None for nobody's.
        preflight: looks at the cluster first, None for nothing.
        lasting: gives a command that still works when the run is over, from one that works while it lasts.
        registries: how registries are talked to.
        lease: how long the cluster's lock on the release is held and waited for.
        lock_digest: sha256 of `manifests/lock.yaml`.
        manifests_digest: of the manifests in use.
        git_revision: of servepath.
    """

    cluster: Cluster
    source: str
    repository: str
    namespace: str
    name: str
    served_model_name: str
    engine_image: str
    profile: Profile
    path: ServingPath = ServingPath.KSERVE
    replace: bool = False
    gate: GatePlan = field(default_factory=GatePlan)
    canary: CanaryPlan | None = field(default_factory=CanaryPlan)
    usd_per_hour: float | None = None
    stop_after: bool = False
    back_to: int = 0
    proof: Proof | None = None
    lock: Lock | None = None
    signature: SignaturePolicy | None = None
    preflight: Preflight | None = None
    lasting: Callable[[str], str] = str
    api_key: str = field(default="", repr=False)
    registries: RegistryOptions = field(default_factory=RegistryOptions)
    lease: LeaseTimes = field(default_factory=LeaseTimes)
    lock_digest: str = ""
    manifests_digest: str = ""
    git_revision: str = ""

    @property
    def digest(self) -> str:
        """The digest that is promoted."""
        return parse_pinned(self.source).digest

    @property
    def spec(self) -> ServingSpec:
        """What is to serve: the digest in the cluster's own registry."""
        return ServingSpec(
            namespace=self.namespace,
            name=self.name,
            served_model_name=self.served_model_name,
            modelcar_reference=f"{self.cluster.registry}/{self.repository}@{self.digest}",
            engine_image=self.engine_image,
            profile=self.profile,
        )


class Action(StrEnum):
    """What becomes of an object."""

    CREATE = "create"
    CHANGE = "change"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One object: its place, what becomes of it, and how it differs (a unified diff, or words)."""

    place: str
    action: Action
    diff: str = ""


@dataclass(frozen=True, slots=True)
class PlannedCost:
    """Engines times their price, in US dollars per hour: now, while it is promoted, and afterwards."""

    now_usd_per_hour: float
    during_usd_per_hour: float
    after_usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a promotion would do. Making it changed nothing.

    Attributes:
        spec: what is to serve.
        path: how.
        strategy: how it comes into the place of what serves.
        serving: what serves now, `digest (promotion N)` in words; empty for nothing.
        copy: what is copied.
        changes: what becomes of each object, by the API server's own dry run.
        steps: what happens, in words and in order.
        cost: None when no price was given.
        may_be_lost: what may be lost, in words; empty for nothing.
        missing: what preflight found missing, with the commands that fix it.
        unfinished: numbers of promotions that were killed: they are finished or undone first.
    """

    spec: ServingSpec
    path: ServingPath
    strategy: Strategy
    serving: str
    copy: CopyPlan
    changes: tuple[PlannedChange, ...]
    steps: tuple[str, ...]
    cost: PlannedCost | None
    may_be_lost: tuple[str, ...]
    missing: tuple[CheckResult, ...]
    unfinished: tuple[int, ...]
