"""How a person sees blobs move: a bar for each on a terminal, a line for each everywhere else."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from servepath.modelcar.push.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from servepath.modelcar.model import Progress
    from servepath.modelcar.push.transfers import Transfer

INTERVAL_S = 10.0
"""How often a log says how far a blob is."""


class PlainTransfers:
    """One line when a blob is there, and one every ten seconds until then: what a log wants.

    Args:
        console: where to.
        clock: gives seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._transfers = Transfers(clock)
        self._said_s: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        """Take a report in, and print it if it is time to."""
        transfer = self._transfers.update(progress)
        said_s = self._said_s.setdefault(transfer.name, transfer.now_s)
        if transfer.is_done or transfer.now_s - said_s >= INTERVAL_S:
            self._said_s[transfer.name] = transfer.now_s
            _print(self._console, transfer)


class LiveTransfers:
    """A bar for each blob that is moving; a line above them for each that is there.

    Args:
        bars: the display, which is running.
    """

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._transfers = Transfers()
        self._tasks: dict[tuple[str, str, int], TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        """Take a report in and show it."""
        transfer = self._transfers.update(progress)
        key = (transfer.name, transfer.step, transfer.total_bytes)
        if transfer.is_done:
            if key in self._tasks:
                self._bars.remove_task(self._tasks.pop(key))
            _print(self._bars.console, transfer)
            return
        if key not in self._tasks:
            text = f"{transfer.step} {transfer.name}"
            self._tasks[key] = self._bars.add_task(text, total=transfer.total_bytes, completed=transfer.done_bytes)
        if transfer.done_bytes >= transfer.total_bytes:
            self._bars.remove_task(self._tasks.pop(key))
        else:
            self._bars.update(self._tasks[key], completed=transfer.done_bytes)


@contextmanager
def show_transfers(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A display that fits the console: bars on a terminal, lines in a log."""
    if not console.is_terminal:
        yield PlainTransfers(console)
        return
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield LiveTransfers(bars)


def _print(console: Console, transfer: Transfer) -> None:
    console.print(Text(f"  {transfer}"), soft_wrap=True, highlight=False)
