"""A bar on a terminal for each blob that moves."""

from __future__ import annotations

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
            self._bars.console.print(Text(f"  {transfer}"), soft_wrap=True, highlight=False)
            return
        if key not in self._tasks:
            text = f"{transfer.step} {transfer.name}"
            self._tasks[key] = self._bars.add_task(text, total=transfer.total_bytes, completed=transfer.done_bytes)
        if transfer.done_bytes >= transfer.total_bytes:
            self._bars.remove_task(self._tasks.pop(key))
        else:
            self._bars.update(self._tasks[key], completed=transfer.done_bytes)


@contextmanager
def show_bars(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Bars, which go away at the end; the lines above them stay.

    Args:
        console: a terminal.
    """
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield LiveTransfers(bars)
