"""Await that a path serves: rollout complete, route programmed, one real completion; or say early why it never will."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import anyio

from servepath.cluster.diagnostics import container_log
from servepath.cluster.wait import changes, describe, is_observed, is_true, until
from servepath.errors import ClusterError
from servepath.redaction import redact
from servepath.serving.causes import (
    Cause,
    cause_in_deployment,
    cause_in_inferenceservice,
    cause_in_llminferenceservice,
    cause_in_pod,
)
from servepath.serving.completion import Attempt
from servepath.serving.model import AnyPath, DeployPath, ServingPath

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio.abc import TaskGroup
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.cluster.objects import Json

T = TypeVar("T")

_LOG_LINES = 20
_LINE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must become ready.

    Attributes:
        path: the serving path.
        namespace: where.
        name: the applied object: the Deployment's, the InferenceService's or the LLMInferenceService's name.
        deployment: the Deployment that runs the engine; KServe makes its own.
        selector: labels of its pods.
        container: the engine's container as applied: image, args and model tell the new revision from the old.
        host: the Host header, empty where the InferenceService's status tells it, or where the path of the URL routes.
        model: the served model name.
        timeout_s: budget from now to the first completion, in seconds.
        request_timeout_s: budget of one completion, in seconds.
        patience_s: how long a cause that may pass by itself is borne, in seconds.
        annotations: of its pods, where they alone tell the new revision from the old.
    """

    path: AnyPath
    namespace: str
    name: str
    deployment: str
    selector: Mapping[str, str]
    container: Mapping[str, Any]
    host: str
    model: str
    timeout_s: float
    request_timeout_s: float
    patience_s: float
    annotations: Mapping[str, str] = field(default_factory=dict)


async def await_ready(client: AsyncClient, cluster: Cluster, expected: Expectation, api_key: str) -> str:
    """Await the first completion of a path. No error's text holds the key, also where an engine logged it.

    Returns:
        The Host header that routes to it.

    Raises:
        ClusterError: with the real cause (image pull, crash with its last log lines, unschedulable, a webhook's
            refusal, ReconcileFailed), or with the last state seen when the budget is spent.
    """

    async def work(progress: _Progress) -> str:
        await _roll_out(client, expected, progress)
        return await _serve_first(client, cluster, expected, api_key, progress)

    return await _unless_hopeless(client, expected, api_key, work, wanted="completion")


async def await_rolled_out(client: AsyncClient, expected: Expectation, api_key: str) -> None:
    """Await that a path's engine is ready in all its pods; whether a route leads there is left open.

    Raises:
        ClusterError: with the real cause, as of `await_ready`.
    """

    async def work(progress: _Progress) -> None:
        await _roll_out(client, expected, progress)

    await _unless_hopeless(client, expected, api_key, work, wanted="ready pods")


async def _unless_hopeless(
    client: AsyncClient,
    expected: Expectation,
    api_key: str,
    work: Callable[[_Progress], Awaitable[T]],
    *,
    wanted: str,
) -> T:
    """Do the work within the budget, and give up as soon as the path cannot become ready."""
    progress = _Progress()
    done: list[T] = []
    try:
        with anyio.move_on_after(expected.timeout_s):
            async with anyio.create_task_group() as group:
                _watch_for_causes(group, client, expected)
                done.append(await work(progress))
                group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise _without_key(_first_cluster_error(errors), api_key) from None
    if done:
        return done[0]
    spent = ClusterError(
        f"no {wanted} in {expected.timeout_s:.0f} s; {progress.last()}",
        where=f"{expected.path.value} path, {expected.namespace}/{expected.name}",
        expected=f"{wanted} in time",
        next_command=f"kubectl -n {expected.namespace} describe pods -l {_selector(expected)}",
    )
    raise _without_key(spent, api_key)


class _Progress:
    """What is awaited now, and what was seen last: the text of a spent budget."""

    def __init__(self) -> None:
        self.awaited = "nothing was awaited yet"
        self.seen: Callable[[], str] = str

    def last(self) -> str:
        seen = self.seen()
        return f"awaited {self.awaited}" + (f"; last seen: {seen}" if seen else "")


async def _roll_out(client: AsyncClient, expected: Expectation, progress: _Progress) -> None:
    latest: list[Json | None] = [None]
    progress.awaited = f"the rollout of Deployment {expected.deployment}"
    progress.seen = lambda: describe(latest[0])

    def rolled_out(deployment: Json | None) -> bool | None:
        latest[0] = deployment
        if deployment is None or not carries(deployment["spec"]["template"], expected.annotations):
            return None
        return True if is_rolled_out(deployment, expected.container) else None

    await until(
        client,
        "Deployment",
        expected.namespace,
        expected.deployment,
        rolled_out,
        timeout_s=expected.timeout_s,
        expected="rolled out",
    )


async def _serve_first(
    client: AsyncClient, cluster: Cluster, expected: Expectation, api_key: str, progress: _Progress
) -> str:
    latest: list[Json | None] = [None]

    def ready_host(service: Json | None) -> str | None:
        latest[0] = service
        return _CONTROLLED[expected.path].host(service) if service is not None else None

    host = expected.host
    if (controlled := _CONTROLLED.get(expected.path)) is not None:
        progress.awaited = f"{controlled.kind} {expected.name}"
        progress.seen = lambda: describe(latest[0])
        host = await until(
            client,
            controlled.kind,
            expected.namespace,
            expected.name,
            ready_host,
            timeout_s=expected.timeout_s,
            expected="Ready",
        )
    attempt = Attempt(cluster.gateway_url, host, expected.model, api_key, expected.request_timeout_s)
    progress.awaited = f"a completion from {cluster.gateway_url} (Host: {host})"
    progress.seen = lambda: attempt.last
    await attempt.succeed()
    return host


def is_rolled_out(deployment: Mapping[str, Any], container: Mapping[str, Any]) -> bool:
    """Tell whether a Deployment runs this container in all its replicas, and no pod of an older revision.

    Right after an update both the Deployment and the InferenceService can still say Ready of the revision before.
    """
    if not is_observed(deployment) or not runs(deployment["spec"]["template"]["spec"], container):
        return False
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    counts = (status.get("updatedReplicas", 0), status.get("replicas", 0), status.get("availableReplicas", 0))
    return wanted > 0 and counts == (wanted, wanted, wanted)


def runs(pod_spec: Mapping[str, Any], container: Mapping[str, Any]) -> bool:
    """Tell whether a pod's spec runs this container: the same image, arguments and model."""
    return any(
        candidate.get("name") == container["name"]
        and candidate.get("image") == container["image"]
        and candidate.get("args") == container["args"]
        and _model_of(candidate) == _model_of(container)
        for candidate in pod_spec.get("containers", [])
    )


def carries(obj: Mapping[str, Any], annotations: Mapping[str, str]) -> bool:
    """Tell whether an object, or a pod template, has these annotations."""
    present = (obj.get("metadata") or {}).get("annotations") or {}
    return annotations.items() <= present.items()


def host_when_ready(service: Mapping[str, Any]) -> str | None:
    """Give the host of an InferenceService that says Ready and has a URL."""
    url = (service.get("status") or {}).get("url")
    if not is_true(service, "Ready") or not url:
        return None
    return urlsplit(str(url)).netloc


def _no_host_when_ready(service: Mapping[str, Any]) -> str | None:
    """Give the empty host of an LLMInferenceService that says Ready: its route goes by the path of the URL."""
    return "" if is_true(service, "Ready") else None


def _model_of(container: Mapping[str, Any]) -> str:
    values = {variable["name"]: variable.get("value", "") for variable in container.get("env") or []}
    return str(values.get("STORAGE_URI") or values.get("MODELCAR_DIGEST") or "")


def _watch_for_causes(group: TaskGroup, client: AsyncClient, expected: Expectation) -> None:
    """Start the watches that raise ClusterError as soon as the path cannot become ready."""
    watched: list[tuple[str, str, Callable[[Json], Cause | None]]] = [
        ("Deployment", expected.deployment, cause_in_deployment)
    ]
    if (controlled := _CONTROLLED.get(expected.path)) is not None:
        watched.append((controlled.kind, expected.name, controlled.cause))

    def of_this_revision(pod: Json) -> Cause | None:
        is_new = runs(pod["spec"], expected.container) and carries(pod, expected.annotations)
        return cause_in_pod(pod) if is_new else None

    for kind, name, judge in watched:
        group.start_soon(_raise_causes, client, expected, kind, {"name": name}, judge)
    group.start_soon(_raise_causes, client, expected, "Pod", {"labels": expected.selector}, of_this_revision)


async def _raise_causes(
    client: AsyncClient,
    expected: Expectation,
    kind: str,
    which: Mapping[str, Any],
    judge: Callable[[Json], Cause | None],
) -> None:
    """Watch objects and raise the first cause that stays."""
    latest: dict[str, Cause | None] = {}

    async def bear(obj: Json, cause: Cause) -> None:
        """Raise a cause that may pass by itself when it is still there after a while."""
        await anyio.sleep(expected.patience_s)
        now = latest.get(obj["metadata"]["name"])
        if now is not None and now.reason == cause.reason:
            raise await _error(client, expected, kind, obj, now)

    async with (
        anyio.create_task_group() as group,
        aclosing(changes(client, kind, expected.namespace, **which)) as events,
    ):
        async for event, obj in events:
            name = obj["metadata"]["name"]
            cause = judge(obj) if event != "DELETED" else None
            before = latest.get(name)
            latest[name] = cause
            if cause is None:
                continue
            if not cause.may_pass:
                raise await _error(client, expected, kind, obj, cause)
            if before is None or before.reason != cause.reason:
                group.start_soon(bear, obj, cause)


async def _error(client: AsyncClient, expected: Expectation, kind: str, obj: Json, cause: Cause) -> ClusterError:
    name = obj["metadata"]["name"]
    log = ""
    if kind == "Pod" and cause.container:
        log = await _last_lines(client, expected.namespace, name, cause.container)
    return ClusterError(
        str(cause) + (f"; its last lines:\n{log}" if log else ""),
        where=f"{expected.path.value} path, {kind} {expected.namespace}/{name}",
        next_command=f"kubectl -n {expected.namespace} describe {kind.lower()} {name}",
    )


async def _last_lines(client: AsyncClient, namespace: str, pod: str, container: str) -> str:
    for previous in (True, False):
        text = await container_log(client, namespace, pod, container, lines=_LOG_LINES, previous=previous)
        if text.strip():
            return last_lines(text)
    return ""


def last_lines(text: str) -> str:
    """Give the last lines of a log, each cut where it is very long: a traceback may print a whole tensor."""
    lines = text.rstrip().splitlines()[-_LOG_LINES:]
    return "\n".join(line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]} …" for line in lines)


def _without_key(error: BaseException, api_key: str) -> BaseException:
    """Give an error whose texts do not hold the key: what an engine logs or answers is not ours to trust."""
    if not isinstance(error, ClusterError):
        return error
    hide = partial(redact, secrets=[api_key])
    return ClusterError(
        hide(error.what),
        where=hide(error.where),
        expected=hide(error.expected),
        next_command=hide(error.next_command),
    )


def _first_cluster_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    for error in errors.exceptions:
        found = _first_cluster_error(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, ClusterError):
            return found
    return errors


def _selector(expected: Expectation) -> str:
    return ",".join(f"{key}={value}" for key, value in expected.selector.items())


@dataclass(frozen=True, slots=True)
class _Controlled:
    """An object of which KServe makes the Deployment: its kind, its host once it is ready, and why it never will be."""

    kind: str
    host: Callable[[Json], str | None]
    cause: Callable[[Json], Cause | None]


_CONTROLLED: Mapping[AnyPath, _Controlled] = {
    ServingPath.KSERVE: _Controlled("InferenceService", host_when_ready, cause_in_inferenceservice),
    DeployPath.LLMD: _Controlled("LLMInferenceService", _no_host_when_ready, cause_in_llminferenceservice),
}
