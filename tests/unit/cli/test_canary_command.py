"""`servepath canary`: what its options mean, and what it refuses before it asks a cluster."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from servepath.cli.app import app
from servepath.cli.canary import percents, seconds
from servepath.errors import UsageError


@pytest.mark.parametrize(("text", "found"), [("60s", 60.0), ("2m", 120.0), ("500ms", 0.5), ("1.5m", 90.0), ("7", 7.0)])
def test_a_time_is_read_with_its_unit(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["", "s", "1h", "-1s", "1 s 2", "five"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        seconds(text)


def test_steps_are_read_with_and_without_their_sign() -> None:
    assert percents("5,25%, 50,100") == (5, 25, 50, 100)
    with pytest.raises(UsageError, match="no list of percents"):
        percents("a,100")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "50,25"], "the steps are 50,25"),
        (["--steps", "5"], "rising whole percents"),
        (["--hold", "soon"], "no time"),
        (["--to", "sha256:" + "0" * 64, "--rollback"], "led and rolled back by one call"),
        (["--profile", "tpu"], "no profile"),
    ],
)
def test_a_canary_that_cannot_be_is_refused(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["canary", "--kubeconfig", "none", *arguments])
    assert isinstance(done.exception, UsageError)
    assert words in str(done.exception)


def test_a_cluster_that_is_not_there_is_one_message() -> None:
    done = CliRunner().invoke(app, ["canary", "--kubeconfig", "/nowhere/kubeconfig", "--to", "sha256:" + "0" * 64])
    assert done.exit_code == 5
    assert "/nowhere/kubeconfig" in done.output
