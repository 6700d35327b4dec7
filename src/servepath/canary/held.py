"""The HTTPRoute as one controller holds it: read, written only as it was read, and renewed while the controller lives.

Whoever leads a canary writes its name and the time on the route again and again. Who finds another's name there watches
for one lease: a time that changes belongs to a controller that lives, one that does not to one that was killed. No two
clocks are compared. Every write demands that the route still is as this controller left it, so one that was held up for
longer than its lease and was replaced meanwhile cannot write any more.
"""

from __future__ import annotations

import os
import socket
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
from lightkube.codecs import from_dict
from lightkube.core.exceptions import ApiError

from servepath.canary.route import read_hostnames, read_state, render_route, route_manifest, with_annotations
from servepath.canary.state import RouteState, held_by
from servepath.cluster.client import errors_of, is_passing
from servepath.cluster.objects import Json, read
from servepath.cluster.wait import changes
from servepath.errors import ClusterError, PromotionRefusedError
from servepath.serving.slots import Slot, route_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from lightkube import AsyncClient

    from servepath.serving.model import ServingSpec
    from servepath.serving.render import GatewayRef

_ATTEMPTS = 20
_RETRY_S = 0.5
_RENEWALS_PER_LEASE = 3


def new_holder() -> str:
    """Name this controller: the machine and the process for a person, and what no other has."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"


def now() -> str:
    """Give the time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat()


async def read_route(client: AsyncClient, namespace: str, name: str) -> Json | None:
    """Read the route of the stable hostname, None before the first canary.

    Raises:
        ClusterError: the API server refuses.
    """
    return await read(client, "HTTPRoute", route_name(name), namespace)


async def create_route(
    client: AsyncClient, spec: ServingSpec, gateway: GatewayRef, hostnames: Sequence[str]
) -> RouteState:
    """Put the route in front of the blue slot. One that is there already stays as it is.

    Raises:
        ClusterError: the API server refuses.
    """
    state = RouteState(Slot.BLUE)
    route = render_route(await route_manifest(), spec, gateway, hostnames, state)
    with errors_of(f"HTTPRoute {spec.namespace}/{route_name(spec.name)}"):
        try:
            await client.create(from_dict(route))
        except ApiError as error:
            if error.status.code != HTTPStatus.CONFLICT:
                raise
            present = await read_route(client, spec.namespace, spec.name)
            if present is not None:
                return read_state(present)
    return state


async def is_led(client: AsyncClient, spec: ServingSpec, seen: RouteState, lease_s: float) -> bool:
    """Watch a route for one lease: whether the controller that is named on it lives.

    Args:
        client: the Kubernetes client.
        spec: whose route it is.
        seen: the state that was read, with a canary.
        lease_s: how long a living controller may take to renew its hold, in seconds.
    """
    with anyio.move_on_after(lease_s):
        watched = changes(client, "HTTPRoute", spec.namespace, name=route_name(spec.name))
        async with aclosing(watched) as events:
            async for event, route in events:
                if event == "DELETED" or read_state(route) != seen:
                    return True
    return False


class HeldRoute:
    """The route of one controller.

    Args:
        client: the Kubernetes client.
        spec: whose route it is.
        gateway: the Gateway that it attaches to.
        state: what it said when it was read.
    """

    def __init__(self, client: AsyncClient, spec: ServingSpec, gateway: GatewayRef, state: RouteState) -> None:
        self.state = state
        self._sent = state
        self._client = client
        self._spec = spec
        self._gateway = gateway
        self._manifest: Json = {}
        self._lock = anyio.Lock()

    async def move(self, state: RouteState) -> RouteState:
        """Write a state in the place of the one that was written or read last.

        Raises:
            PromotionRefusedError: the route is another by now: another controller took over, or somebody changed it.
            ClusterError: the API server refuses, or does not answer twenty times in a row.
        """
        async with self._lock:
            return await self._write(state)

    async def renew(self) -> None:
        """Say on the route that this controller lives.

        Raises:
            PromotionRefusedError: another controller took over.
            ClusterError: the API server refuses, or does not answer.
        """
        async with self._lock:
            if self.state.canary is not None:
                await self._write(held_by(self.state, self.state.canary.holder, now()))

    @asynccontextmanager
    async def renewing(self, lease_s: float) -> AsyncIterator[None]:
        """Renew the hold while the block runs; the block is cancelled when it is lost.

        An API server that does not answer loses nothing by itself: the next write tells whether somebody took over.
        """

        async def run() -> None:
            while True:
                await anyio.sleep(lease_s / _RENEWALS_PER_LEASE)
                with suppress(ClusterError):
                    await self.renew()

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield
            group.cancel_scope.cancel()

    async def take_over(self, holder: str) -> bool:
        """Name this controller on whatever canary is under way, also where another one lives and leads it.

        Returns:
            Whether there is a canary.

        Raises:
            ClusterError: the API server refuses, or does not answer.
        """

        def taken(found: RouteState) -> RouteState | None:
            return held_by(found, holder, now()) if found.canary else None

        async with self._lock:
            return await self._replace(taken) is not None

    async def _write(self, state: RouteState) -> RouteState:
        def checked(found: RouteState) -> RouteState:
            # An earlier write may have been taken whose answer never came.
            if found not in (self.state, state, self._sent):
                raise _lost(self._where)
            self.state = found
            return state

        await self._replace(checked)
        return state

    async def _replace(self, wanted: Callable[[RouteState], RouteState | None]) -> RouteState | None:
        """Replace what is there by what is wanted of it; None leaves it.

        A gateway that writes its status in between makes the route another version: it is read again. So it is where
        the API server was busy or cut off: whether it was written is not known then, what is read next tells.
        """
        last = ""
        for _ in range(_ATTEMPTS):
            try:
                return await self._replace_once(wanted)
            except ClusterError as error:
                last = error.what
                if is_passing(error.__cause__, 500):
                    await anyio.sleep(_RETRY_S)
                elif not _is_conflict(error.__cause__):
                    raise
        raise ClusterError(f"not written in {_ATTEMPTS} attempts, at last: {last}", where=self._where)

    async def _replace_once(self, wanted: Callable[[RouteState], RouteState | None]) -> RouteState | None:
        manifest = self._manifest = self._manifest or await route_manifest()
        present = await read_route(self._client, self._spec.namespace, self._spec.name)
        if present is None:
            raise _lost(self._where)
        found = read_state(present)
        state = wanted(found)
        if state is None or state == found:
            self.state = found
            return state
        route = render_route(manifest, self._spec, self._gateway, read_hostnames(present), state)
        route = with_annotations({**route, "metadata": _merged(present["metadata"], route["metadata"])}, state)
        self._sent = state
        # Cancelled in between, one would not know whether it was written.
        with anyio.CancelScope(shield=True), errors_of(self._where):
            await self._client.replace(from_dict(route))
            self.state = state
        return state

    @property
    def _where(self) -> str:
        return f"HTTPRoute {self._spec.namespace}/{route_name(self._spec.name)}"


def _is_conflict(error: BaseException | None) -> bool:
    return isinstance(error, ApiError) and error.status.code == HTTPStatus.CONFLICT


def _merged(present: Json, wanted: Json) -> Json:
    """Give the metadata of a replacement: the version that was read, and what others have put there."""
    labels = {**(present.get("labels") or {}), **wanted["labels"]}
    return {**{key: value for key, value in present.items() if key != "managedFields"}, "labels": labels}


def with_holder(state: RouteState, holder: str) -> RouteState:
    """Name the controller that leads a canary from now on."""
    return held_by(state, holder, now())


def refused(spec: ServingSpec, state: RouteState) -> PromotionRefusedError:
    """Say that another controller leads a canary."""
    name = route_name(spec.name)
    canary = state.canary
    what = f"a canary to {canary.modelcar} is under way, led by {canary.holder}" if canary else "it has just changed"
    return PromotionRefusedError(
        what,
        where=f"HTTPRoute {spec.namespace}/{name}",
        expected="one canary at a time",
        next_command=f"kubectl -n {spec.namespace} get httproute {name} -o yaml",
    )


def _lost(where: str) -> PromotionRefusedError:
    return PromotionRefusedError(
        "another controller took over, or somebody changed it", where=where, expected="the state that was written last"
    )
