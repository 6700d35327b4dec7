"""The stages of a run: each is timed, shown while it runs, and kept for the report."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from servepath.evidence import StageTiming, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class StageObserver(Protocol):
    """What shows stages to a person."""

    def started(self, name: str) -> None:
        """The stage `name` begins."""

    def noted(self, name: str, detail: str) -> None:
        """The stage `name` has something to say: one short line."""

    def ended(self, timing: StageTiming) -> None:
        """A stage is over."""


@dataclass(slots=True)
class StageNote:
    """The line that a running stage shows; the last one is kept as the stage's detail."""

    name: str
    observer: StageObserver
    detail: str = ""

    def __call__(self, detail: str) -> None:
        """Show `detail` beside the stage."""
        self.detail = detail
        self.observer.noted(self.name, detail)


class Stages:
    """The clock of one run. Stages may overlap: both paths are deployed at once.

    Args:
        observer: shows each stage.
        origin_unix_s: when the run began, seconds since the epoch.
        earlier: stages that another process of the same run has finished.
    """

    def __init__(self, observer: StageObserver, origin_unix_s: float, earlier: Sequence[StageTiming] = ()) -> None:
        self._observer = observer
        self._origin_unix_s = origin_unix_s
        self._timings = list(earlier)

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        """Every stage that is over, in the order of their start."""
        return tuple(sorted(self._timings, key=lambda timing: timing.start_s))

    @contextmanager
    def stage(self, name: str) -> Iterator[StageNote]:
        """Time what happens inside; a stage that raises is kept with the verdict `fail`."""
        start_s = time.time() - self._origin_unix_s
        began = time.perf_counter()
        note = StageNote(name, self._observer)
        self._observer.started(name)
        verdict = Verdict.FAIL
        try:
            yield note
            verdict = Verdict.PASS
        finally:
            timing = StageTiming(name, start_s, time.perf_counter() - began, verdict, note.detail)
            self._timings.append(timing)
            self._observer.ended(timing)
