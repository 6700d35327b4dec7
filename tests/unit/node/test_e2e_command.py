"""`python -m ci.node e2e`: what is wrong with its arguments is found before anything is installed or built."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from ci.node import e2e_command
from ci.node.__main__ import app
from servepath.cli.running import run_app
from servepath.report.model import Report
from servepath.serving.model import ServingPath
from tests.unit.report.example_runs import API_KEY, RUN, endpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message", "is_reported"),
    [
        (["--profile", "huge"], 2, "no profile is named 'huge'", False),
        (["--blocks", "1"], 2, "blocks is 1", False),
        (["--source", "x", "--hub", "a/b@c"], 2, "at most one of them", False),
        (["--source", __file__], 3, "no such directory", True),
        (["--hub", "a/b@main"], 3, "'main' is no commit", True),
        (["--report", __file__], 3, "the report cannot be written", False),
        (["--report", f"{__file__}/x"], 3, "the report cannot be written", False),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_prepared(
    arguments: list[str],
    exit_code: int,
    message: str,
    is_reported: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SERVEPATH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["ci.node", "e2e", "--report", str(tmp_path / "report"), *arguments])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    said = capsys.readouterr().err
    assert ended.value.code == exit_code, said
    assert message in said
    assert "next: " in said
    assert "Traceback" not in said
    assert not (tmp_path / "cache").exists()
    assert (tmp_path / "report").exists() == is_reported
    if is_reported:
        document = json.loads((tmp_path / "report" / "report.json").read_text())
        assert document["error"]["exit_code"] == exit_code
        assert document["run"]["command"].startswith("python -m ci.node e2e --report")


def test_how_to_use_a_node_that_was_kept_shows_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    paths = tuple(endpoint(path, 1.0) for path in ServingPath)
    e2e_command._say_how_to_use(Report(RUN, deployments=paths))
    said = capsys.readouterr().err
    assert said.count("curl ") == 2
    assert said.count("Authorization: Bearer $(kubectl ") == 1
    assert API_KEY not in said
