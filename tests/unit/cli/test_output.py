"""What is printed: JSON without keys, checks with what to do next, stages as a log or a terminal shows them."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from servepath.cli.output import check_line, plain
from servepath.cli.progress import LiveDisplay, PlainDisplay, show_stages
from servepath.evidence import CheckResult, StageTiming, Verdict
from servepath.serving.model import Endpoint, ServingPath

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


def test_a_failed_check_says_what_was_expected_and_what_to_type() -> None:
    failed = CheckResult("health", "raw", Verdict.FAIL, "200", "503", 0.1, "kubectl logs x")
    line = check_line(failed).plain
    assert "FAIL" in line
    assert "expected 200" in line
    assert "next: kubectl logs x" in line
    passed = CheckResult("health", "raw", Verdict.PASS, "200", "200", 0.1, "")
    assert "expected" not in check_line(passed).plain


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
