from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from rich.console import Console

from servepath.cli.bars import show_bars
from servepath.cli.transfers import PlainTransfers, show_transfers
from servepath.modelcar.model import Progress
from servepath.modelcar.push.transfers import Transfers, megabytes
from tests.unit.modelcar.helpers import write_base

if TYPE_CHECKING:
    from pathlib import Path

MB = 1_000_000
NAME = "models/model.safetensors"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_rate_and_time_left_count_from_where_an_upload_is_continued() -> None:
    clock = Clock()
    transfers = Transfers(clock)
    assert str(transfers.update(Progress(NAME, 400 * MB, 1000 * MB))) == f"{NAME}: sending 400 of 1000 MB"
    clock.now_s += 2
    transfer = transfers.update(Progress(NAME, 600 * MB, 1000 * MB))
    assert (transfer.bytes_per_s, transfer.left_s) == (100 * MB, 4)
    assert str(transfer) == f"{NAME}: sending 600 of 1000 MB, 100 MB/s, 4 s left"
    assert str(transfers) == "600 of 1000 MB, 100 MB/s, 4 s left"
    clock.now_s += 3
    assert str(transfers.update(Progress(NAME, 1000 * MB, 1000 * MB))) == f"{NAME}: 1000 MB in 5.0 s, 120 MB/s"


def test_blobs_are_told_apart_and_added_up() -> None:
    clock = Clock()
    transfers = Transfers(clock)
    assert str(transfers.update(Progress("base", 2 * MB, 2 * MB))) == "base: 2.0 MB, already there"
    transfers.update(Progress("a", 0, 10 * MB))
    transfers.update(Progress("b", 0, 30 * MB))
    clock.now_s += 1
    transfers.update(Progress("a", 5 * MB, 10 * MB))
    transfers.update(Progress("b", 5 * MB, 30 * MB))
    assert str(transfers) == "10.0 of 40.0 MB, 10.0 MB/s, 3 s left"


def test_hashing_is_not_sending_and_a_begun_anew_upload_counts_anew() -> None:
    clock = Clock()
    transfers = Transfers(clock)
    transfers.update(Progress(NAME, 64 * MB, 100 * MB, "hashing"))
    hashed = transfers.update(Progress(NAME, 100 * MB, 100 * MB, "hashing"))
    assert not hashed.is_done
    assert str(transfers) == "0.000 of 100 MB"
    clock.now_s += 5
    transfers.update(Progress(NAME, 0, 100 * MB))
    clock.now_s += 1
    assert transfers.update(Progress(NAME, 50 * MB, 100 * MB)).bytes_per_s == 50 * MB
    assert transfers.update(Progress(NAME, 0, 100 * MB)).left_s is None
    clock.now_s += 1
    assert transfers.update(Progress(NAME, 20 * MB, 100 * MB)).bytes_per_s == 20 * MB


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end() -> None:
    clock, text = Clock(), io.StringIO()
    show = PlainTransfers(text, clock)
    for second in range(26):
        show(Progress(NAME, second * 4 * MB, 100 * MB))
        clock.now_s += 1
    show(Progress("config", 800, 800))
    assert text.getvalue().splitlines() == [
        f"  {NAME}: sending 40.0 of 100 MB, 4.0 MB/s, 15 s left",
        f"  {NAME}: sending 80.0 of 100 MB, 4.0 MB/s, 5 s left",
        f"  {NAME}: 100 MB in 25.0 s, 4.0 MB/s",
        "  config: 0.001 MB, already there",
    ]


def test_a_terminal_gets_bars_which_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = io.StringIO()
    with show_bars(Console(file=text, force_terminal=True, width=120, height=30)) as show:
        show(Progress(NAME, 0, 100 * MB, "hashing"))
        show(Progress(NAME, 100 * MB, 100 * MB, "hashing"))
        show(Progress(NAME, 0, 100 * MB))
        show(Progress("other [bold]", 0, 100 * MB))
        show(Progress(NAME, 50 * MB, 100 * MB))
        show(Progress(NAME, 100 * MB, 100 * MB))
    assert "100 MB in" in text.getvalue()
    assert "other [bold]" in text.getvalue()  # a file's name is no markup
    assert text.getvalue().endswith("\x1b[2K")  # the bars are wiped


def test_a_log_gets_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    with show_transfers() as show:
        show(Progress(NAME, 0, 100 * MB))
        assert text.getvalue() == ""
        show(Progress(NAME, 100 * MB, 100 * MB))
    assert text.getvalue().startswith(f"  {NAME}: 100 MB in")


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0.000"), (812, "0.001"), (1_500_000, "1.5"), (988_097_824, "988")]
)
def test_sizes_are_short(size_bytes: int, text: str) -> None:
    assert megabytes(size_bytes) == text


def test_the_command_says_on_stderr_what_moves_and_on_stdout_the_result_alone(model: Path, tmp_path: Path) -> None:
    base = anyio.run(write_base, tmp_path / "base")
    program = [sys.executable, "-c", "from servepath.cli import main; main()", "modelcar", "--json"]
    options = ["--source", str(model), "--base-image", base, "--layout", str(tmp_path / "out")]
    done = subprocess.run([*program, *options], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["digest"].startswith("sha256:")
    assert {line.split(":")[0] for line in done.stderr.splitlines()} == {"  base", "  6 files", "  config"}
