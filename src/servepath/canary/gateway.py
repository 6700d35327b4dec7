"""What the gateway does, asked of itself: which state of the route it has taken, and whether a slot answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from servepath.canary.route import REVISION_HEADER
from servepath.errors import ClusterError
from servepath.serving.completion import completion_text, first_token_body

if TYPE_CHECKING:
    from servepath.serving.model import Endpoint

TAKEN_IN_A_ROW = 3
"""So many answers on new connections in a row must be led by a state, before the gateway is said to have taken it: one
proxy may have several threads, and a gateway several proxies."""

_MODELS = "/v1/models"
_CHAT = "/v1/chat/completions"
_POLL_S = 0.1
_TAKEN_TIMEOUT_S = 60.0
_PROOF_TIMEOUT_S = 30.0
_PROOF_REQUEST_S = 60.0
_SHOWN_CHARACTERS = 200


async def await_taken(endpoint: Endpoint, revision: int | None, *, timeout_s: float = _TAKEN_TIMEOUT_S) -> None:
    """Await that the gateway leads requests by this state of the route, or by none where the route is gone.

    Args:
        endpoint: the stable hostname.
        revision: the state's number, which every answer carries; None for a route that was deleted.
        timeout_s: budget in seconds.

    Raises:
        ClusterError: it still leads by another state when the budget is spent.
    """
    wanted = "" if revision is None else str(revision)
    seen = "no answer"
    in_a_row = 0
    with anyio.move_on_after(timeout_s):
        while in_a_row < TAKEN_IN_A_ROW:
            try:
                # A client of its own: a kept connection would ask the same proxy again.
                async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as http:
                    answer = await http.get(f"{endpoint.base_url}{_MODELS}", headers=endpoint.headers())
            except httpx.HTTPError as error:
                seen = f"{type(error).__name__}: {error}"
            else:
                found = answer.headers.get(REVISION_HEADER, "")
                seen = f"HTTP {answer.status_code}, {REVISION_HEADER}: {found or 'missing'}"
                if found == wanted:
                    in_a_row += 1
                    continue
            in_a_row = 0
            # Nothing tells when a gateway has programmed a route: it can only be asked again.
            await anyio.sleep(_POLL_S)
        return
    raise ClusterError(
        f"the gateway did not take the route in {timeout_s:.0f} s; last seen: {seen}",
        where=f"{endpoint.base_url} (Host: {endpoint.host})",
        expected=f"answers with {REVISION_HEADER}: {wanted}" if wanted else f"answers without {REVISION_HEADER}",
        next_command=f"kubectl -n {endpoint.namespace} describe httproutes",
    )


async def prove(endpoint: Endpoint, *, timeout_s: float = _PROOF_TIMEOUT_S) -> None:
    """Await that a slot serves the model of the name and answers one completion; no client meets it for that.

    A gateway may learn of the slot's pod later than of the route: what it says itself (502, 503) is asked again. What
    the engine says is final.

    Args:
        endpoint: the slot, through the gateway.
        timeout_s: budget in seconds.

    Raises:
        ClusterError: it serves another model, refuses a completion, or does not answer in time.
    """
    last = "no request was made yet"
    with anyio.move_on_after(timeout_s):
        async with httpx.AsyncClient(
            base_url=endpoint.base_url, headers=endpoint.headers(), timeout=_PROOF_REQUEST_S, trust_env=False
        ) as http:
            while True:
                try:
                    listed = await http.get(_MODELS)
                    if not _may_pass(listed):
                        _check_models(endpoint, listed)
                        answer = await http.post(_CHAT, json=first_token_body(endpoint.model))
                        if not _may_pass(answer):
                            _check_answer(endpoint, answer)
                            return
                        listed = answer
                    last = _shown(listed)
                except httpx.HTTPError as error:
                    last = f"{type(error).__name__}: {error}"
                await anyio.sleep(_POLL_S)
    raise _unproven(endpoint, f"it did not answer in {timeout_s:.0f} s; last seen: {last}")


def _may_pass(response: httpx.Response) -> bool:
    return response.status_code in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)


def _check_models(endpoint: Endpoint, response: httpx.Response) -> None:
    if response.status_code != HTTPStatus.OK:
        raise _unproven(endpoint, f"its list of models is {_shown(response)}")
    try:
        answer: Any = response.json()
        names = [str(model["id"]) for model in answer["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _unproven(endpoint, f"its list of models is {_shown(response)}") from error
    if endpoint.model not in names:
        raise _unproven(endpoint, f"it serves {', '.join(names) or 'nothing'} and not {endpoint.model}")


def _check_answer(endpoint: Endpoint, response: httpx.Response) -> None:
    if completion_text(response) is None:
        raise _unproven(endpoint, f"its first completion is {_shown(response)}")


def _unproven(endpoint: Endpoint, what: str) -> ClusterError:
    return ClusterError(
        what,
        where=f"slot {endpoint.slot}",
        expected=f"a completion of {endpoint.model}",
        next_command=f"kubectl -n {endpoint.namespace} logs deployment/{endpoint.workload} --tail=50",
    )


def _shown(response: httpx.Response) -> str:
    return f"HTTP {response.status_code}: {response.text[:_SHOWN_CHARACTERS]}"
