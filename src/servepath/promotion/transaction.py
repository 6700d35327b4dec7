"""A promotion as a transaction: each stage is written down before it begins, and can be undone from there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from servepath.errors import ClusterError
from servepath.promotion.before import Before, drop_before, drop_rest, keep_before, read_before
from servepath.promotion.history import create_record, prune, read_history, save_record
from servepath.promotion.patience import patiently
from servepath.promotion.record import Remedy, Stage, State, advance, begin_undo, end
from servepath.promotion.restore import NoWaits, Restored, restore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lightkube import AsyncClient

    from servepath.promotion.history import Kept
    from servepath.promotion.record import Record
    from servepath.promotion.restore import Waits

KILLED = "its process was killed"


def now() -> str:
    """Give the time as RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of a promotion that had been killed: what it is now, and what that took."""

    record: Record
    how: str

    def __str__(self) -> str:
        return f"promotion {self.record.number}, killed at {self.record.stage}: {self.how}"


class Transaction:
    """One promotion under way.

    Args:
        client: the Kubernetes client.
        kept: its record, as it was written or read last.
        waits: gives what waits while a promotion is undone.
    """

    def __init__(self, client: AsyncClient, kept: Kept, waits: Callable[[Record], Waits]) -> None:
        self._client = client
        self._waits = waits
        self.kept = kept

    @property
    def record(self) -> Record:
        """What is written down."""
        return self.kept.record

    async def run(self, steps: Mapping[Stage, Callable[[], Awaitable[None]]]) -> None:
        """Take every stage in order; a step may go on to the next stage itself, whose own step is then left out.

        Raises:
            Exception: what a step raised; nothing has been undone yet.
        """
        for stage, step in steps.items():
            if not self._has_reached(stage):
                await self.advance(stage)
                await step()

    async def advance(self, stage: Stage, **attached: Any) -> None:
        """Write down that a stage begins, and what is to be kept beside the record.

        Raises:
            ClusterError: the API server refuses, or somebody else has written the record.
        """
        await self._save(advance(self.record, stage), **attached)

    async def keep(self, **attached: Any) -> None:
        """Keep something beside the record.

        Raises:
            ClusterError: the API server refuses, or somebody else has written the record.
        """
        await self._save(self.record, **attached)

    async def succeed(self, result: str) -> None:
        """Write down that it has succeeded, and forget what was there before.

        Raises:
            ClusterError: the API server refuses.
        """
        await self._save(end(self.record, State.SUCCEEDED, now(), result))
        await self._forget()

    async def undo(self, reason: str) -> Restored:
        """Put back what was there; once more after a kill it goes on.

        Raises:
            ClusterError: the API server refuses, or what served before does not serve again: the next one goes on.
        """
        await self._save(begin_undo(self.record, reason))
        restored = await patiently("putting back what was there", self._restore)
        await self._save(end(self.record, State.ROLLED_BACK, now()))
        await self._forget()
        return restored

    async def _restore(self) -> Restored:
        before = await read_before(self._client, self.record)
        if before is None:  # killed before anything was changed
            return Restored()

        spec = self.record.spec
        waits = self._waits(self.record) if before.was_serving else NoWaits()
        return await restore(self._client, spec.namespace, spec.name, before.objects, waits)

    async def _save(self, record: Record, **attached: Any) -> None:
        async def save() -> Kept:
            return await save_record(self._client, self.kept, record, **attached)

        self.kept = await patiently(f"writing promotion {record.number}", save)

    async def _forget(self) -> None:
        """Forget what is not needed any more; where that fails the promotion is over all the same."""
        with suppress(ClusterError):
            await drop_before(self._client, self.record)
            await prune(self._client, self.record.spec.namespace, self.record.spec.name)

    def _has_reached(self, stage: Stage) -> bool:
        order = tuple(Stage)
        return order.index(self.record.stage) >= order.index(stage)


async def begin(client: AsyncClient, record: Record, before: Before, waits: Callable[[Record], Waits]) -> Transaction:
    """Begin a promotion: write it down, and keep what is there.

    Raises:
        ClusterError: the API server refuses.
    """
    kept = await create_record(client, record, {})
    await keep_before(client, record, before)
    return Transaction(client, kept, waits)


async def recover(
    client: AsyncClient,
    namespace: str,
    release: str,
    is_done: Callable[[Record], Awaitable[bool]],
    waits: Callable[[Record], Waits],
) -> tuple[Recovered, ...]:
    """Finish or undo every promotion whose process is gone, the newest first. Only for whoever holds the Lease.

    Args:
        client: the Kubernetes client.
        namespace: the release's namespace.
        release: its base name.
        is_done: looks whether one that was at `verify` serves: then it has succeeded.
        waits: gives what waits while a promotion is undone.

    Raises:
        ClusterError: the API server refuses, or what served before does not serve again.
    """
    history = await read_history(client, namespace, release)
    await drop_rest(client, namespace, release, {one.record.number for one in history if not one.record.is_over})
    recovered = []
    for kept in reversed(history):
        remedy = kept.record.remedy
        if remedy is Remedy.NONE:
            continue
        transaction = Transaction(client, kept, waits)
        if remedy is Remedy.FINISH and await is_done(kept.record):
            await transaction.succeed(f"{KILLED}, and the next one found it done")
            how = "finished"
        else:
            how = f"undone, {await transaction.undo(KILLED)}"
        recovered.append(Recovered(kept.record, how))
    return tuple(recovered)
