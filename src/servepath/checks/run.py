"""Running the checks: a few at once, each with its time limit, and never a traceback."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import httpx
from lightkube import ApiError

from servepath.checks.context import CheckContext, Finding, Tools
from servepath.checks.kubernetes import describe_workload, kubectl
from servepath.checks.registry import CLUSTER_CHECKS, KSERVE_CHECKS, PAIR_CHECKS, PATH_CHECKS, RAW_CHECKS
from servepath.cluster.client import kubernetes
from servepath.errors import ServepathError
from servepath.evidence import CheckResult, Verdict
from servepath.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class PlannedCheck:
    """One check bound to its subject, and the command to show when it could not even look."""

    name: str
    subject: str
    expected: str
    call: Callable[[], Awaitable[Finding]]
    next_command: str


async def smoke(context: CheckContext, progress: Callable[[CheckResult], None]) -> tuple[CheckResult, ...]:
    """Run every check that applies to the endpoints in the context.

    Args:
        context: what was asked for and where it should be found.
        progress: called with each result as soon as it is there, in the order of completion.

    Returns:
        One result for each check in the order of the registry; nothing that a check met is raised.

    Raises:
        ClusterError: the kubeconfig cannot be used.
    """
    async with kubernetes(context.cluster) as kube, _gateway(context) as http:
        planned = plan(Tools(context, kube, http))
        return await run_all(planned, context, progress)


def plan(tools: Tools) -> tuple[PlannedCheck, ...]:
    """Bind every check of the registry to the subjects in the context."""
    context = tools.context
    nodes = kubectl(context.cluster, "get", "nodes,pods", "-A", "-o", "wide")
    planned = [_planned(check, "cluster", nodes, tools) for check in CLUSTER_CHECKS]
    for endpoint, own in ((context.raw, RAW_CHECKS), (context.kserve, KSERVE_CHECKS)):
        if endpoint is not None:
            look = describe_workload(tools, endpoint)
            planned += [_planned(check, str(endpoint.path), look, tools, endpoint) for check in (*own, *PATH_CHECKS)]
    if context.raw is not None and context.kserve is not None:
        planned += [_planned(check, "both", nodes, tools, context.raw, context.kserve) for check in PAIR_CHECKS]
    return tuple(planned)


def _planned(check: Callable[..., Awaitable[Finding]], subject: str, look: str, *arguments: Any) -> PlannedCheck:
    name = str(getattr(check, "__name__", check))
    first_line = (inspect.getdoc(check) or name).partition("\n")[0].rstrip(".")
    return PlannedCheck(name, subject, first_line, partial(check, *arguments), look)


async def run_all(
    planned: tuple[PlannedCheck, ...], context: CheckContext, progress: Callable[[CheckResult], None]
) -> tuple[CheckResult, ...]:
    """Run planned checks, `context.concurrency` at once, and give their results in the planned order."""
    results: dict[int, CheckResult] = {}
    limiter = anyio.CapacityLimiter(context.concurrency)

    async def run(number: int, one: PlannedCheck) -> None:
        async with limiter:
            results[number] = await run_one(one, context)
        progress(results[number])

    async with anyio.create_task_group() as group:
        for number, one in enumerate(planned):
            group.start_soon(run, number, one)
    return tuple(results[number] for number in range(len(planned)))


async def run_one(one: PlannedCheck, context: CheckContext) -> CheckResult:
    """Run one check within `context.timeout_s`; whatever it raises becomes a failure that says what was met."""
    started = anyio.current_time()
    try:
        with anyio.fail_after(context.timeout_s):
            found = await one.call()
    except Exception as error:  # noqa: BLE001 - a check that breaks is a failed check, whatever broke it
        found = _broken(error, context, anyio.current_time() - started)
    hide = partial(_without_keys, context=context)
    return CheckResult(
        name=one.name,
        subject=one.subject,
        verdict=found.verdict,
        expected=hide(found.expected or one.expected),
        seen=hide(found.seen),
        duration_s=anyio.current_time() - started,
        next_command=hide(found.next_command or one.next_command) if found.verdict is Verdict.FAIL else "",
    )


def _broken(error: Exception, context: CheckContext, elapsed_s: float) -> Finding:
    if isinstance(error, ServepathError):
        where = f"{error.where}: " if error.where else ""
        return Finding(Verdict.FAIL, f"{where}{error.what}", next_command=error.next_command)
    if isinstance(error, TimeoutError) and elapsed_s >= context.timeout_s:
        return Finding(Verdict.FAIL, f"no result within {context.timeout_s:g} s")
    if isinstance(error, ApiError):
        return Finding(Verdict.FAIL, f"the API server says {error.status.code}: {error.status.message}")
    return Finding(Verdict.FAIL, " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":"))


def _without_keys(text: str, context: CheckContext) -> str:
    """Hide every key: an answer or a library's message may quote what was sent."""
    return redact(text, [one.api_key for one in (context.raw, context.kserve) if one is not None])


def _gateway(context: CheckContext) -> httpx.AsyncClient:
    """Give a client that follows no redirect and uses no proxy: what is checked is the gateway itself."""
    timeout = httpx.Timeout(context.timeout_s, connect=CONNECT_TIMEOUT_S)
    return httpx.AsyncClient(timeout=timeout, trust_env=False)
