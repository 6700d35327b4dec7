"""What every tier shares: its end comes, whatever a test left behind."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long one example takes says more of the machine than of the code.
settings.register_profile("patient", parent=settings.default, deadline=None)
settings.load_profile("patient")

LEAVE_S = 10.0
"""A worker thread whose event loop has just ended needs a moment to see it."""


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """End with 1, and say where each waits, when threads are left that the interpreter would join for ever."""
    left = list(_threads_left())
    if not left:
        return
    frames = sys._current_frames()
    for thread in left:
        sys.stderr.write(f"a test left the thread {thread.name!r} behind, which keeps the interpreter from ending:\n")
        frame = frames.get(thread.ident or 0)
        sys.stderr.writelines(traceback.format_stack(frame) if frame else ())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _threads_left() -> Iterator[threading.Thread]:
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(LEAVE_S)
            if thread.is_alive():
                yield thread
