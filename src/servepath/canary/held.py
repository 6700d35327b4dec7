"""The HTTPRoute as one controller holds it: read, and written only as it was read.

Whoever leads a canary holds the release's Lease (`servepath.cluster.lease`), and its name is on the route. Every write
demands that the route still is as this controller left it: one that was held up until its Lease was another's cannot
write any more.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from lightkube.codecs import from_dict
from lightkube.core.exceptions import ApiError

from servepath.canary.route import read_hostnames, read_state, render_route, route_manifest, with_annotations
from servepath.canary.state import RouteState, held_by
from servepath.cluster.client import errors_of, is_passing
from servepath.cluster.objects import Json, read
from servepath.errors import ClusterError, PromotionRefusedError
from servepath.serving.slots import Slot, route_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightkube import AsyncClient

    from servepath.serving.model import ServingSpec
    from servepath.serving.render import GatewayRef

_ATTEMPTS = 20
_RETRY_S = 0.5


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

    async def move(self, state: RouteState) -> RouteState:
        """Write a state in the place of the one that was written or read last.

        Raises:
            PromotionRefusedError: the route is another by now: another controller took over, or somebody changed it.
            ClusterError: the API server refuses, or does not answer twenty times in a row.
        """

        def checked(found: RouteState) -> RouteState:
            # An earlier write may have been taken whose answer never came.
            if found not in (self.state, state, self._sent):
                raise _lost(self._where)
            self.state = found
            return state

        await self._replace(checked)
        return state

    async def take_over(self, holder: str) -> bool:
        """Name this controller on whatever canary is under way, whoever is named there.

        Returns:
            Whether there is a canary.

        Raises:
            ClusterError: the API server refuses, or does not answer.
        """

        def taken(found: RouteState) -> RouteState | None:
            return held_by(found, holder) if found.canary else None

        return await self._replace(taken) is not None

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


def _lost(where: str) -> PromotionRefusedError:
    return PromotionRefusedError(
        "another controller took over, or somebody changed it", where=where, expected="the state that was written last"
    )
