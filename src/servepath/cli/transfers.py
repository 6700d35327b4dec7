"""How a person sees blobs move: a bar for each on a terminal, a line for each everywhere else."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from servepath.modelcar.push.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servepath.modelcar.model import Progress

INTERVAL_S = 10.0
"""How often a log says how far a blob is."""


class PlainTransfers:
    """One line when a blob is there, and one every ten seconds until then: what a log wants.

    Args:
        stream: where to.
        clock: gives seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._transfers = Transfers(clock)
        self._said_s: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        """Take a report in, and print it if it is time to."""
        transfer = self._transfers.update(progress)
        said_s = self._said_s.setdefault(transfer.name, transfer.now_s)
        if transfer.is_done or transfer.now_s - said_s >= INTERVAL_S:
            self._said_s[transfer.name] = transfer.now_s
            self._stream.write(f"  {transfer}\n")


@contextmanager
def show_transfers() -> Iterator[Callable[[Progress], None]]:
    """A display on standard error that fits it: bars on a terminal, lines in a log."""
    if not sys.stderr.isatty():
        yield PlainTransfers(sys.stderr)
        return
    from servepath.cli.bars import show_bars  # noqa: PLC0415 - rich takes a fifth of a short push
    from servepath.cli.output import stderr_console  # noqa: PLC0415

    with show_bars(stderr_console()) as show:
        yield show
