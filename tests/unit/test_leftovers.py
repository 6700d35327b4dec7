"""The guard of tests/conftest.py: a thread that a test leaves behind fails the run, and does not hang it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tests.conftest

LEAVING = """
import threading

def test_leaves_a_thread():
    def waits_for_ever():
        threading.Event().wait()
    threading.Thread(target=waits_for_ever, daemon={daemon}).start()
"""


@pytest.mark.parametrize("daemon", [False, True])
def test_a_thread_that_would_be_joined_for_ever_ends_the_run_with_its_place(tmp_path: Path, *, daemon: bool) -> None:
    (tmp_path / "test_leaving.py").write_text(LEAVING.format(daemon=daemon))
    (tmp_path / "conftest.py").write_text(
        Path(tests.conftest.__file__).read_text().replace("LEAVE_S = 10.0", "LEAVE_S = 0.1")
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout
    assert done.returncode == (0 if daemon else 1)
    assert ("in waits_for_ever" in done.stderr) is not daemon
