"""One promotion or canary of a release at a time: a coordination.k8s.io Lease, renewed, taken over when it ran out.

The rules are those of Kubernetes' own leader election (client-go v0.34, tools/leaderelection): whether a holder is
gone is told by the observer's own clock, from when the Lease last changed before its eyes, so that no two machines'
clocks need agree; every write carries the resource version that it was decided on, so that of two that take it over
one is refused.
"""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
import httpx2
from lightkube.core.exceptions import ApiError
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from msgspec.structs import replace

from servepath.cluster.client import errors_of
from servepath.cluster.labels import labels_of
from servepath.cluster.model import LeaseTimes
from servepath.errors import ClusterError, PromotionRefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lightkube import AsyncClient


PROMOTION = "promotion"
CANARY = "canary"
_SHOWN_BY = {PROMOTION: "history", CANARY: "canary"}
"""The command that says how far it is."""


class LeaseLostError(ClusterError):
    """The Lease is somebody else's now, or could not be renewed in time: nothing more may be changed."""


def lease_name(release: str) -> str:
    """Give the name of a release's Lease."""
    return f"{release}-promotion"


def new_holder(work: str) -> str:
    """Name a holder: what it does, the machine and the process for a person, and what no other has."""
    return f"{work} {socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"


@asynccontextmanager
async def hold(  # noqa: PLR0913 - whose it is, who holds it and how, each a word or two
    client: AsyncClient,
    namespace: str,
    release: str,
    holder: str,
    times: LeaseTimes | None = None,
    *,
    at_once_from: str = "",
) -> AsyncIterator[Holding]:
    """Hold the Lease of a release for the block; the block is cancelled when it is lost.

    An error of the block comes out as itself, also where the block was interrupted: it may say what was left undone.

    Args:
        client: the Kubernetes client.
        namespace: the release's namespace, which exists.
        release: base name of what is promoted.
        holder: who holds it, as `new_holder` gives it; no two processes may have the same.
        times: how long it is held and waited for.
        at_once_from: the work of those from whom it is taken without waiting, whether they live or not; empty for none.

    Raises:
        PromotionRefusedError: somebody else held it all the time that was waited.
        LeaseLostError: it was lost while the block ran.
        ClusterError: the API server refuses.
    """
    held = Holding(client, namespace, release, holder, times or LeaseTimes())
    await held.acquire(at_once_from)
    failed: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            # Whoever is interrupted still puts things back, and must hold the Lease until that is done.
            renewing = anyio.CancelScope(shield=True)

            async def renew() -> None:
                with renewing:
                    try:
                        await held.renew_for_ever()
                    except LeaseLostError as error:
                        held.lose(error)
                        group.cancel_scope.cancel()

            group.start_soon(renew)
            try:
                yield held
            except Exception as error:  # noqa: BLE001 - raised below, outside the task group, as itself
                failed = error
            finally:
                renewing.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await held.release()
        # Not only where the block came to its end: whoever interrupts is told who puts things back, and what was not.
        if (ended_by := held.lost or failed) is not None:
            raise ended_by


class Holding:
    """A Lease that one process holds, or waits for; `holder` names it, `lost` says why it holds it no more."""

    def __init__(self, client: AsyncClient, namespace: str, release: str, holder: str, times: LeaseTimes) -> None:
        self._client, self._namespace, self._release = client, namespace, release
        self._times = times
        self._name = lease_name(release)
        self._lease: Lease | None = None
        self._shielded: anyio.CancelScope | None = None
        self.holder = holder
        self.lost: LeaseLostError | None = None

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Let nothing end the block but the loss of the Lease: it is left then, without an error of its own."""
        with anyio.CancelScope(shield=True) as scope:
            self._shielded = scope
            try:
                yield
            finally:
                self._shielded = None

    def lose(self, error: LeaseLostError) -> None:
        """Hold it no more: what is shielded from every other end stops too, as the next one may be at it already."""
        self.lost = error
        if self._shielded is not None:
            self._shielded.cancel()

    @property
    def _place(self) -> str:
        return f"Lease {self._namespace}/{self._name}"

    async def acquire(self, at_once_from: str = "") -> None:
        """Take the Lease as soon as it is free or has run out, or somebody who does this work holds it.

        Raises:
            PromotionRefusedError: it did not become so in the time that is waited.
            ClusterError: the API server refuses.
        """
        seen_version, seen_s = "", anyio.current_time()
        deadline_s = anyio.current_time() + self._times.wait_s
        with errors_of(self._place):
            while True:
                lease = await self._read()
                now_s = anyio.current_time()
                if lease is None or _is_free(lease) or _work_of(lease) == at_once_from:
                    if await self._take(lease):
                        return
                    continue
                version = str(lease.metadata.resourceVersion) if lease.metadata else ""
                if version != seen_version:
                    seen_version, seen_s = version, now_s
                duration_s = (lease.spec.leaseDurationSeconds if lease.spec else None) or self._times.duration_s
                if now_s - seen_s >= duration_s and await self._take(lease):
                    return
                if now_s >= deadline_s:
                    raise self._refused(lease)
                await anyio.sleep(self._times.poll_s)

    async def renew_for_ever(self) -> None:
        """Renew the Lease until cancelled.

        Raises:
            LeaseLostError: somebody else has it, or it could not be renewed before it ran out.
        """
        renewed_s = anyio.current_time()
        while True:
            await anyio.sleep(self._times.renew_s)
            left_s = renewed_s + self._times.duration_s - self._times.renew_s / 2 - anyio.current_time()
            try:
                with errors_of(self._place), anyio.fail_after(max(0.0, left_s)):
                    await self._renew()
                renewed_s = anyio.current_time()
            except LeaseLostError:
                raise
            except (ClusterError, TimeoutError) as error:
                if anyio.current_time() >= renewed_s + self._times.duration_s - self._times.renew_s:
                    raise LeaseLostError(
                        f"could not be renewed in {self._times.duration_s} s: {error or 'no answer'}",
                        where=self._place,
                        next_command="kubectl cluster-info",
                    ) from error

    async def release(self) -> None:
        """Let the Lease go, so that the next one need not wait; where that fails, it runs out."""
        if self.lost is not None:
            return
        # Read anew: a renewal that was cancelled may have been written.
        with suppress(httpx2.HTTPError):
            lease = await self._read()
            if lease is not None and lease.spec is not None and lease.spec.holderIdentity == self.holder:
                spec = replace(lease.spec, holderIdentity="", leaseDurationSeconds=1, renewTime=_now())
                await self._client.replace(replace(lease, spec=spec))

    async def _renew(self) -> None:
        lease = self._lease
        if lease is None or lease.spec is None:  # pragma: no cover - acquire comes first
            raise LeaseLostError("not held", where=self._place)
        renewed = replace(lease, spec=replace(lease.spec, renewTime=_now()))
        try:
            self._lease = await self._client.replace(renewed)
        except ApiError as error:
            if error.status.code not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            # A write whose answer was lost looks like somebody else's: see who holds it now.
            present = await self._read()
            if present is None or present.spec is None or present.spec.holderIdentity != self.holder:
                raise LeaseLostError(
                    f"now held by {_holder(present)}", where=self._place, expected=f"held by {self.holder}"
                ) from error
            self._lease = present

    async def _read(self) -> Lease | None:
        try:
            return await self._client.get(Lease, self._name, namespace=self._namespace)
        except ApiError as error:
            if error.status.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _take(self, present: Lease | None) -> bool:
        """Write this holder into the Lease; False when somebody else was faster."""
        now = _now()
        spec = LeaseSpec(
            holderIdentity=self.holder,
            leaseDurationSeconds=self._times.duration_s,
            acquireTime=now,
            renewTime=now,
            leaseTransitions=((present.spec.leaseTransitions if present and present.spec else None) or 0) + 1,
        )
        try:
            if present is None:
                metadata = ObjectMeta(name=self._name, namespace=self._namespace, labels=labels_of(self._release))
                self._lease = await self._client.create(Lease(metadata=metadata, spec=spec))
            else:
                self._lease = await self._client.replace(replace(present, spec=spec))
        except ApiError as error:
            if error.status.code == HTTPStatus.CONFLICT:
                return False
            raise
        return True

    def _refused(self, lease: Lease) -> PromotionRefusedError:
        command = _SHOWN_BY.get(_work_of(lease), "history")
        return PromotionRefusedError(
            f"another is under way: {_holder(lease)} holds the Lease",
            where=self._place,
            expected="one promotion or canary of a release at a time",
            next_command=f"servepath {command} --namespace {self._namespace} --name {self._release}",
        )


def _is_free(lease: Lease) -> bool:
    return lease.spec is None or not lease.spec.holderIdentity


def _holder(lease: Lease | None) -> str:
    return (lease.spec.holderIdentity if lease and lease.spec else None) or "nobody"


def _work_of(lease: Lease) -> str:
    """Give what a holder does."""
    return _holder(lease).partition(" ")[0]


def _now() -> datetime:
    return datetime.now(UTC)
