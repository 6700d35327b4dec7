from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from ci.node.__main__ import app

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEPATH_CACHE", str(tmp_path))


def test_status_of_nothing_is_down() -> None:
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 1
    assert result.output.startswith("down")


def test_exec_without_a_node_says_what_to_type() -> None:
    result = CliRunner().invoke(app, ["exec", "--", "true"])
    assert result.exit_code == 5
    assert "no node is up" in result.output
    assert "python -m ci.node up" in result.output


def test_down_without_a_node_does_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["down"])
    assert (result.exit_code, result.output.strip()) == (0, "nothing was up")
    assert list(tmp_path.iterdir()) == []


def test_what_works_inside_only_is_refused_outside(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["start-inside", str(tmp_path)])
    assert result.exit_code == 2
    assert "inside a holder only" in result.output
    assert "python -m ci.node up" in result.output
