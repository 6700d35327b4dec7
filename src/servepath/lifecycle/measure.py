"""What KServe gives and costs besides latency, measured on two paths that are deployed and serve.

Each stage runs alone: while one path is started, stopped or updated, nothing else is. At the end both paths serve
again, as `servepath deploy` deploys them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from lightkube.resources.core_v1 import Pod

from servepath.cluster.client import errors_of, kubernetes
from servepath.errors import ClusterError, first_servepath_error
from servepath.lifecycle.footprint import Footprint, Meter, kubelet_footprint
from servepath.lifecycle.model import Lifecycle, Measurement, Rollout
from servepath.lifecycle.rollout import RECREATE, ROLLING_UPDATE, LoadPlan, roll_out
from servepath.lifecycle.staging import pull_times_s, staging_time_s
from servepath.lifecycle.summary import measurement
from servepath.serving.deploy import delete, deploy_kserve, deploy_raw
from servepath.serving.find import find
from servepath.serving.model import Endpoint, ServingPath, ServingSpec
from servepath.serving.stopped import pod_labels
from servepath.serving.switch import our_engine, start, stop

if TYPE_CHECKING:
    from servepath.cluster.model import Cluster

Evict: TypeAlias = Callable[[str], Awaitable[None]]
"""Takes an image off every node, given its reference. Kubernetes has no call for it: only who owns the node can."""

PATHS = (ServingPath.RAW, ServingPath.KSERVE)

BRIEF_ROLLOUTS = (
    (ServingPath.RAW, RECREATE),
    (ServingPath.KSERVE, RECREATE),
    (ServingPath.KSERVE, ROLLING_UPDATE),
)
"""The updates of a whole job, whose lifecycle is to take five minutes at most."""

COLD = "apply_to_first_token_cold"
WARM = "apply_to_first_token_warm"
START = "start_to_first_token"
STOP = "stop"
INTO_NODE = "model_into_node"
PULL = "modelcar, pulled by the node"
COPY = "volume, copied from the modelcar"

_HOW = {
    COLD: "nothing of the path there and the modelcar not on the node, the engine's image is; the path alone starts",
    WARM: "nothing of the path there, all images on the node; the path alone starts",
    START: "from the end of the stop to the first token through the gateway; raw's volume holds the model already",
    STOP: "until the last pod is gone; the pods' preStop hook alone is 5 s",
}
_HOW_INTO_NODE = {
    PULL: "the kubelet's own time of the pull, from its event",
    COPY: "copying alone, by the clock in the pod, after the pull: the raw path needs both",
}
_MEMORY = "working set of its pods, from the kubelet; raw needs the gateway alone"


@dataclass(frozen=True, slots=True)
class LifecyclePlan:
    """What is measured, and how often.

    Attributes:
        rounds: how often each start, stop and update is measured.
        rollouts: which path is updated with which strategy.
        load: the load of an update.
        memory_how: how `footprint` measures memory, for the report.
    """

    rounds: int = 1
    rollouts: tuple[tuple[ServingPath, str], ...] = tuple(
        (path, strategy) for strategy in (RECREATE, ROLLING_UPDATE) for path in PATHS
    )
    load: LoadPlan = field(default_factory=LoadPlan)
    memory_how: str = _MEMORY


async def measure_lifecycle(  # noqa: PLR0913
    cluster: Cluster,
    spec: ServingSpec,
    plan: LifecyclePlan | None = None,
    *,
    evict: Evict | None = None,
    footprint: Footprint | None = None,
    progress: Callable[[str], None] | None = None,
) -> Lifecycle:
    """Measure updates, stops, starts, the model's way into the node, and the control plane.

    Args:
        cluster: where both paths are deployed and serve.
        spec: what they were deployed with.
        plan: what is measured, and how often.
        evict: takes the modelcar off the node; without it the cold start and the pull are skipped.
        footprint: what runs for the paths; the kubelets are asked where it is not given.
        progress: is told what is measured next.

    Raises:
        ClusterError: a path does not serve, before or after a change to it.
    """
    keys = {path: (await find(cluster, spec.namespace, spec.name, path, spec.profile))[1].api_key for path in PATHS}
    run = _Run(
        cluster,
        spec,
        plan or LifecyclePlan(),
        keys,
        Meter(footprint or partial(kubelet_footprint, cluster)),
        progress or _quiet,
    )
    for _ in range(run.plan.rounds):
        for path, strategy in run.plan.rollouts:
            await run.update(path, strategy)
        for path in PATHS:
            await run.stop_and_start(path)
        if evict is not None:
            await run.cold_starts(evict)
        for path in PATHS:
            await run.warm_start(path)
        await run.stage()
    if evict is None:
        run.skipped.append(
            "start with the modelcar absent, and its pull: Kubernetes has no call that takes an image off a node"
        )
    return run.result()


@dataclass(slots=True)
class _Run:
    """A measurement under way.

    Attributes:
        cluster: where.
        spec: what.
        plan: how often.
        keys: the engines' keys by path: a path that is taken away comes back with the same.
        meter: reads the control plane's footprint between the stages.
        progress: is told what comes next.
        samples: by name and subject.
        rollouts: so far.
        skipped: what could not be measured, and why.
    """

    cluster: Cluster
    spec: ServingSpec
    plan: LifecyclePlan
    keys: dict[ServingPath, str]
    meter: Meter
    progress: Callable[[str], None]
    samples: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    rollouts: list[Rollout] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    async def update(self, path: ServingPath, strategy: str) -> None:
        """Update a path under load; where the node has no room for two engines, say so."""
        await self._begin(f"update of {path}, {strategy}")
        _, endpoint = await find(self.cluster, self.spec.namespace, self.spec.name, path, self.spec.profile)
        try:
            self.rollouts.append(await roll_out(self.cluster, self.spec, endpoint, strategy, self.plan.load))
        except (ClusterError, BaseExceptionGroup) as error:
            found = first_servepath_error(error)
            if found is None or "Unschedulable" not in found.what:
                raise
            self.skipped.append(f"update of {path}, {strategy}: {found.what}")
            # With its own strategy again, the update comes to its end.
            await start(self.cluster, self.spec.namespace, self.spec.name, path, self.spec.profile)

    async def stop_and_start(self, path: ServingPath) -> None:
        """Stop a path and start it again."""
        where = (self.cluster, self.spec.namespace, self.spec.name, path)
        await self._begin(f"stop of {path}")
        self._keep(STOP, path, (await stop(*where)).duration_s)
        await self._begin(f"start of {path}")
        self._keep(START, path, (await start(*where, self.spec.profile)).duration_s)

    async def cold_starts(self, evict: Evict) -> None:
        """Start each path on a node that has not got the modelcar; afterwards the last one serves."""
        for path in PATHS:
            await self._begin(f"cold start of {path}")
            await delete(self.cluster, self.spec.namespace, self.spec.name)
            await evict(self.spec.modelcar_reference)
            endpoint = await self._deploy(path)
            pulls_s = await self._pulls_s(path)
            if not pulls_s:
                self.skipped.append(f"cold start of {path}: the node still had the modelcar")
                continue
            self._keep(COLD, path, endpoint.ready_s)
            for pull_s in pulls_s:
                self._keep(INTO_NODE, PULL, pull_s)

    async def warm_start(self, path: ServingPath) -> None:
        """Take a path away and deploy it again."""
        await self._begin(f"warm start of {path}")
        await delete(self.cluster, self.spec.namespace, self.spec.name, (path,))
        self._keep(WARM, path, (await self._deploy(path)).ready_s)

    async def stage(self) -> None:
        """Copy the model into a volume."""
        await self._begin("copy of the model into a volume")
        self._keep(INTO_NODE, COPY, await staging_time_s(self.cluster, self.spec))
        await self._begin("end")

    def result(self) -> Lifecycle:
        """Give what was measured."""
        made = [
            measurement(name, subject, "s", tuple(values), _HOW.get(name) or _HOW_INTO_NODE[subject])
            for (name, subject), values in sorted(self.samples.items(), key=lambda item: _ORDER.index(item[0][0]))
        ]
        footprint: tuple[Measurement, ...] = self.meter.measurements(self.plan.memory_how)
        if not footprint:
            self.skipped.append("memory and CPU of the control plane: none of its pods was found")
        return Lifecycle((*made, *footprint), tuple(self.rollouts), tuple(dict.fromkeys(self.skipped)))

    async def _begin(self, what: str) -> None:
        self.progress(what)
        try:
            await self.meter.read()
        except ClusterError as error:
            self.skipped.append(f"memory and CPU of the control plane: {error.what}")

    def _keep(self, name: str, subject: str, value: float) -> None:
        self.samples[name, str(subject)].append(value)

    async def _deploy(self, path: ServingPath) -> Endpoint:
        deploy = deploy_raw if path is ServingPath.RAW else deploy_kserve
        return await deploy(self.cluster, self.spec, self.keys[path])

    async def _pulls_s(self, path: ServingPath) -> tuple[float, ...]:
        """How long the pods of a path that was just deployed waited for their modelcar."""
        spec = self.spec
        async with kubernetes(self.cluster) as client:
            engine = await our_engine(client, spec.namespace, spec.name, path)
            with errors_of(f"pods in {spec.namespace}"):
                listed = client.list(Pod, namespace=spec.namespace, labels=dict(pod_labels(engine, path)))
                pods = {str(pod.metadata.name) async for pod in listed if pod.metadata}
            return await pull_times_s(client, spec.namespace, spec.modelcar_reference, pods)


_ORDER = (COLD, WARM, START, STOP, INTO_NODE)


def _quiet(what: str) -> None:
    """Say nothing."""
    del what
