"""The gateway in front of a path: what it routes, what it does not, and for how long."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from servepath.checks.asking import MODELS, Question, ask, get, shown
from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import read_routes, show_routes

if TYPE_CHECKING:
    from servepath.cluster.objects import Json
    from servepath.serving.model import Endpoint

OPEN_PATHS = ("/metrics", "/docs", "/version")
CLOSED = (HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE)
UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}")
DURATION_PART = re.compile(r"([0-9]{1,5})(h|ms|m|s)")


async def wrong_host_is_404(tools: Tools, endpoint: Endpoint) -> Finding:
    """The gateway answers 404 to a Host that no route names.

    Why: a route or listener that takes any host would put every tenant's traffic on this model.
    """
    question = Question(endpoint.base_url, f"no-such-host.{tools.context.spec.domain}", MODELS, key=endpoint.api_key)
    response = await ask(tools, question)
    problems = [] if response.status_code == HTTPStatus.NOT_FOUND else [shown(response)]
    return finding(problems, shown(response), question.curl())


async def open_paths_are_not_routed(tools: Tools, endpoint: Endpoint) -> Finding:
    """The gateway answers 404 to /metrics, /docs and /version.

    Why: vLLM asks for no key there, so no route may reach them. KServe's own HTTPRoute matches `^/.*$`: on that path it
    takes a second one, behind which is nothing (5xx) while the slot that it was made with is stopped. Source: KServe
    v0.19.0, `httproute_reconciler.go`; vLLM 0.23.0 as seen.
    """
    questions = [get(endpoint, path) for path in OPEN_PATHS]
    statuses = {question.path: (await ask(tools, question)).status_code for question in questions}
    seen = ", ".join(f"{path} {status}" for path, status in statuses.items())
    reached = [path for path, status in statuses.items() if status not in CLOSED]
    return finding([seen] if reached else [], seen, questions[0].curl())


async def route_timeout_is_as_asked(tools: Tools, endpoint: Endpoint) -> Finding:
    """Every rule that leads to the path's engine has the request timeout that was asked for.

    Why: KServe's default of 60 s cuts long generations. Source: KServe v0.19.0, `httproute_reconciler.go`,
    `resolveTimeout`; Gateway API, `HTTPRouteTimeouts`.
    """
    asked_s = tools.context.spec.profile.request_timeout_s
    problems = judge_timeouts(await read_routes(tools, endpoint), asked_s, endpoint.workload)
    return finding(problems, f"{asked_s} s", show_routes(tools, endpoint), expected=f"a request timeout of {asked_s} s")


def judge_timeouts(routes: list[Json], asked_s: int, service: str) -> list[str]:
    """Give the rules whose request timeout is another than `asked_s` seconds.

    While a canary is led, rules of the same host lead to the other slot's Service too: those are that engine's.
    """
    problems = []
    judged = 0
    for route in routes:
        name = route["metadata"]["name"]
        rules = route.get("spec", {}).get("rules") or []
        if not rules:
            problems.append(f"HTTPRoute {name} has no rule")
        for number, rule in enumerate(rules):
            backends = {backend["name"] for backend in rule.get("backendRefs") or ()}
            if backends and service not in backends:
                continue
            judged += 1
            written = (rule.get("timeouts") or {}).get("request", "")
            if duration_s(written) != asked_s:
                problems.append(f"HTTPRoute {name} rule {number}: timeouts.request is {written or 'not set'}")
    if not judged and not problems:
        problems.append(f"no rule leads to the Service {service}")
    return problems


def duration_s(written: str) -> float | None:
    """Give a Gateway API duration (GEP-2257, such as `1h30m` or `600s`) in seconds, None when it is none."""
    if not DURATION.fullmatch(written):
        return None
    return sum(float(number) * UNIT_S[unit] for number, unit in DURATION_PART.findall(written))
