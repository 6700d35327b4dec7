"""The stage `verify`: the stable hostname answers from the digest, which the cluster's registry still has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from servepath.canary.gateway import prove
from servepath.canary.stable import find_stable
from servepath.cluster.objects import read
from servepath.errors import CheckFailedError, ServepathError
from servepath.evidence import CheckResult, Verdict
from servepath.modelcar.registry.client import RegistryOptions, open_registry
from servepath.modelcar.registry.reference import parse_pinned
from servepath.modelcar.registry.repository import Repository
from servepath.serving.completion import Attempt
from servepath.serving.find import find
from servepath.serving.model import ServingPath
from servepath.serving.render import object_name
from servepath.serving.stopped import is_stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint, ServingSpec

SUBJECT = "promotion"
_ANSWER_TIMEOUT_S = 60.0


async def verify_promotion(
    client: AsyncClient, cluster: Cluster, spec: ServingSpec, path: ServingPath, registries: RegistryOptions
) -> tuple[CheckResult, ...]:
    """Check that what was promoted serves. Nothing that a check met is raised."""

    async def answers() -> str:
        endpoint = await _serving(client, cluster, spec, path)
        wanted = spec.modelcar_reference.partition("@")[2]
        if endpoint.modelcar_digest != wanted:
            raise CheckFailedError(f"it serves {endpoint.modelcar_digest}", where=endpoint.host, expected=wanted)
        return f"{endpoint.host} answers from {wanted}"

    async def registry_has_it() -> str:
        pinned = parse_pinned(spec.modelcar_reference)
        async with open_registry(pinned.registry, registries) as opened:
            document = await Repository(opened, pinned.repository).read_manifest(pinned.digest)
        return f"{pinned.registry}/{pinned.repository} has {document.digest}"

    async def one_version() -> str:
        return await _one_version(client, cluster, spec, path)

    return (
        await _checked("stable_hostname_serves_the_digest", "a completion from this digest", answers),
        await _checked("registry_has_the_digest", "the manifest under its digest", registry_has_it),
        await _checked("one_version_runs", "no other slot runs", one_version),
    )


def refuse_unverified(checks: tuple[CheckResult, ...]) -> None:
    """Let only a promotion end that is what it should be.

    Raises:
        CheckFailedError: it is not.
    """
    for check in checks:
        if check.verdict is Verdict.FAIL:
            raise CheckFailedError(
                check.seen, where=check.name, expected=check.expected, next_command=check.next_command
            )


async def _serving(client: AsyncClient, cluster: Cluster, spec: ServingSpec, path: ServingPath) -> Endpoint:
    """Give the endpoint that clients have, after one completion of it.

    Raises:
        CheckFailedError: it gives none in time.
        ClusterError: it is not ready, or not as servepath deploys it.
    """
    if path is ServingPath.KSERVE:
        stable = await find_stable(client, cluster, spec.namespace, spec.name, spec.profile)
        await prove(stable.endpoint)
        return stable.endpoint
    _, endpoint = await find(cluster, spec.namespace, spec.name, path, spec.profile)
    attempt = Attempt(endpoint.base_url, endpoint.host, endpoint.model, endpoint.api_key, _ANSWER_TIMEOUT_S)
    with anyio.move_on_after(_ANSWER_TIMEOUT_S):  # it asks for ever, and an engine that died is to be rolled back
        await attempt.succeed()
        return endpoint
    raise CheckFailedError(
        f"no completion in {_ANSWER_TIMEOUT_S:.0f} s; last seen: {attempt.last}",
        where=endpoint.host,
        expected=f"a completion of {endpoint.model}",
        next_command=f"kubectl -n {endpoint.namespace} logs deployment/{endpoint.workload} --tail=50",
    )


async def _one_version(client: AsyncClient, cluster: Cluster, spec: ServingSpec, path: ServingPath) -> str:
    if path is not ServingPath.KSERVE:
        return "there is one place"
    stable = await find_stable(client, cluster, spec.namespace, spec.name, spec.profile)
    if stable.state is None:
        raise CheckFailedError("the stable hostname has no route of its own", where=spec.name)
    if stable.state.canary is not None:
        raise CheckFailedError(f"a canary is {stable.state.canary.phase}", where=spec.name, expected="none")
    other = object_name(spec.in_slot(stable.state.stable.other), path)
    engine = await read(client, "InferenceService", other, spec.namespace)
    if engine is None:
        return f"{other} is not there"
    if not is_stopped(engine, path):
        raise CheckFailedError(f"{other} runs too", where=spec.namespace, expected="stopped")
    return f"{other} is stopped"


async def _checked(name: str, expected: str, look: Callable[[], Awaitable[str]]) -> CheckResult:
    began = time.monotonic()
    try:
        seen, verdict, following = await look(), Verdict.PASS, ""
    except ServepathError as error:
        seen = f"{error.where}: {error.what}" if error.where else error.what
        verdict, following = Verdict.FAIL, error.next_command
    return CheckResult(name, SUBJECT, verdict, expected, seen, time.monotonic() - began, following)
