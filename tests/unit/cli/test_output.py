"""What is printed: JSON without keys, checks with what to do next, stages as a log or a terminal shows them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from servepath.cli.output import check_line, console_line, stderr_console, without_secrets
from servepath.cli.progress import LiveDisplay, PlainDisplay, show_stages
from servepath.cli.results import plain, print_json
from servepath.evidence import CheckResult, StageTiming, Verdict
from servepath.serving.model import Endpoint, ServingPath

if TYPE_CHECKING:
    import pytest

KEY = "planted-key-0123456789"
ENDPOINT = Endpoint(
    path=ServingPath.RAW,
    base_url="http://127.0.0.1",
    host="a.test",
    model="m",
    namespace="n",
    workload="w",
    modelcar_digest="sha256:0",
    engine_image="i",
    ready_s=1.0,
    api_key=KEY,
)


def test_json_of_an_endpoint_has_every_field_but_the_key() -> None:
    document = plain({"endpoints": (ENDPOINT,), "where": Path("a/b")})
    assert document["where"] == "a/b"
    assert document["endpoints"][0]["host"] == "a.test"
    assert "api_key" not in document["endpoints"][0]
    assert KEY not in repr(document)
    assert KEY not in repr(ENDPOINT)


def test_a_check_that_did_not_pass_says_what_was_expected_and_what_to_type() -> None:
    failed = CheckResult("health", "raw", Verdict.FAIL, "200", "503", 0.1, "kubectl logs x")
    line = check_line(failed).plain
    assert "FAIL" in line
    assert "expected 200" in line
    assert "next: kubectl logs x" in line
    untold = CheckResult("push", "cluster", Verdict.SKIP, "the right", "not known yet", 0.1, "docker login x")
    line = check_line(untold).plain
    assert "skip" in line
    assert line.endswith("not known yet\n       next: docker login x")
    passed = CheckResult("health", "raw", Verdict.PASS, "200", "200", 0.1, "kubectl logs x")
    assert "expected" not in check_line(passed).plain
    assert "next" not in check_line(passed).plain


def test_a_log_gets_a_line_at_the_start_and_one_at_the_end_of_a_stage() -> None:
    text = io.StringIO()
    with show_stages(Console(file=text)) as observer:
        assert isinstance(observer, PlainDisplay)
        observer.started("push")
        observer.noted("push", "half")
        observer.ended(StageTiming("push", 0.0, 1.25, Verdict.FAIL, "half"))
    assert text.getvalue().splitlines() == ["  .. push", "FAIL push                1.2 s  half"]


def test_a_terminal_shows_running_stages_with_their_note() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with show_stages(console) as observer:
        assert isinstance(observer, LiveDisplay)
        observer.started("deploy raw")
        observer.started("deploy kserve")
        observer.noted("deploy raw", "waiting for vLLM")
        shown = Console(width=100, file=io.StringIO())
        with shown.capture() as capture:
            shown.print(observer)
        assert "deploy raw" in capture.get()
        assert "waiting for vLLM" in capture.get()
        assert "deploy kserve" in capture.get()
        observer.ended(StageTiming("deploy raw", 0.0, 3.0, Verdict.PASS, ""))
        with shown.capture() as capture:
            shown.print(observer)
        assert "deploy raw" not in capture.get()


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_line_that_is_printed_while_stages_are_shown_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    stderr_console.cache_clear()
    try:
        with show_stages(stderr_console()) as observer:
            observer.started("deploy raw")
            observer.started("deploy kserve")
            stderr_console().print("", end="")  # draws both stages
            terminal.truncate(0)
            console_line("interrupted")
    finally:
        stderr_console.cache_clear()
    # The lines of the display are erased before the line is written, and drawn again below it.
    before, _, after = terminal.getvalue().partition("interrupted")
    assert before.endswith("\x1b[2K\x1b[1A\x1b[2K")
    assert after.startswith("\n")
    assert "deploy raw" in after.split("\x1b[1A")[0]


def test_what_an_engine_said_cannot_drive_the_terminal() -> None:
    nasty = CheckResult("health", "raw", Verdict.FAIL, "200", "\x1b[31m \ud83d \x00", 0.1, "")
    line = check_line(nasty).plain
    assert "\x1b" not in line
    line.encode()


def test_json_has_no_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ratio": float("nan"), "rate": (1.5, float("inf"))})
    assert json.loads(capsys.readouterr().out) == {"ratio": None, "rate": [1.5, None]}


def test_checks_lose_the_keys_that_an_engine_said_back() -> None:
    said = CheckResult("health", "raw", Verdict.FAIL, "200", f"got {KEY}", 0.1, f"curl -H {KEY}")
    (hidden,) = without_secrets([said], [KEY])
    assert KEY not in repr(hidden)
    assert hidden.seen == "got [redacted]"
