"""Bytes, rate and remaining time of the blobs that are on their way, out of the progress that a push reports."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.modelcar.model import Progress


SHOWN_S = 0.1
"""What took less has no rate worth telling."""


class Transfer(Struct, frozen=True):
    """How far one blob is.

    Attributes:
        name: what it holds.
        step: what is done with it: `sending` or `hashing`.
        began_s: when this step began, by the clock of `Transfers`.
        now_s: when this was true.
        first_bytes: what was there when the step began: more than 0 where an earlier upload is continued.
        done_bytes: what is there now.
        total_bytes: the blob's size.
    """

    name: str
    step: str
    began_s: float
    now_s: float
    first_bytes: int
    done_bytes: int
    total_bytes: int

    @property
    def is_done(self) -> bool:
        """Whether all of it is there."""
        return self.done_bytes >= self.total_bytes and self.step == "sending"

    @property
    def was_there(self) -> bool:
        """Whether it was there before anything was sent."""
        return self.is_done and self.first_bytes >= self.total_bytes > 0

    @property
    def bytes_per_s(self) -> float:
        """Bytes per second since the step began; 0 while that is not known."""
        elapsed_s = self.now_s - self.began_s
        return (self.done_bytes - self.first_bytes) / elapsed_s if elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until it is done at this rate; None while that is not known."""
        return (self.total_bytes - self.done_bytes) / self.bytes_per_s if self.bytes_per_s > 0 else None

    def __str__(self) -> str:
        """Say it in one line."""
        if self.was_there:
            return f"{self.name}: {megabytes(self.total_bytes)} MB, already there"
        if self.is_done:
            took_s = self.now_s - self.began_s
            rate = _rate(self.bytes_per_s) if took_s >= SHOWN_S else ""
            return f"{self.name}: {megabytes(self.total_bytes)} MB in {took_s:.1f} s{rate}"
        done = f"{self.name}: {self.step} {megabytes(self.done_bytes)} of {megabytes(self.total_bytes)} MB"
        return f"{done}{_rate(self.bytes_per_s)}{_left(self.left_s)}"


class Transfers:
    """All blobs of one push.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._transfers: dict[tuple[str, int], Transfer] = {}

    def update(self, progress: Progress) -> Transfer:
        """Take a report in and return how far its blob is."""
        now_s, key = self._clock(), (progress.name, progress.total_bytes)
        known = self._transfers.get(key)
        if known is None or known.step != progress.step or progress.sent_bytes < known.done_bytes:
            known = Transfer(
                progress.name,
                progress.step,
                now_s,
                now_s,
                progress.sent_bytes,
                progress.sent_bytes,
                progress.total_bytes,
            )
        self._transfers[key] = replace(known, now_s=now_s, done_bytes=progress.sent_bytes)
        return self._transfers[key]

    def __str__(self) -> str:
        """Say how far the blobs that were reported are, all together."""
        transfers = self._transfers.values()
        sent = [transfer for transfer in transfers if not transfer.was_there]
        done = sum(transfer.done_bytes for transfer in sent if transfer.step == "sending")
        total = sum(transfer.total_bytes for transfer in sent)
        moving = [transfer for transfer in sent if not transfer.is_done]
        rate = sum(transfer.bytes_per_s for transfer in moving if transfer.step == "sending")
        left_s = (total - done) / rate if rate > 0 else None
        return f"{megabytes(done)} of {megabytes(total)} MB{_rate(rate)}{_left(left_s)}"


def megabytes(size_bytes: int) -> str:
    """Return the size in MB (1,000,000 bytes) as a person reads it: three digits while it is small."""
    size_mb = size_bytes / 1e6
    return f"{size_mb:.0f}" if size_mb >= 100 else f"{size_mb:.1f}" if size_mb >= 1 else f"{size_mb:.3f}"  # noqa: PLR2004


def _rate(bytes_per_s: float) -> str:
    return f", {megabytes(round(bytes_per_s))} MB/s" if bytes_per_s > 0 else ""


def _left(left_s: float | None) -> str:
    if left_s is None:
        return ""
    minutes, seconds = divmod(round(left_s), 60)
    return f", {minutes} min {seconds:02} s left" if minutes else f", {seconds} s left"
