"""stop, start and lifecycle as a user meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.cli import lifecycle as commands
from servepath.lifecycle.model import Lifecycle, Measurement, Rollout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Servepath


@pytest.mark.parametrize("command", [("stop",), ("start",), ("stop", "--path", "raw"), ("lifecycle",)])
def test_an_api_that_does_not_answer_is_exit_code_5_and_says_whose_it_is(
    servepath: Servepath, kubeconfig: Path, command: tuple[str, ...]
) -> None:
    done = servepath(*command, "--kubeconfig", str(kubeconfig))
    assert done.returncode == 5
    assert "does not answer" in done.stderr
    assert f"kubectl --kubeconfig {kubeconfig}" in done.stderr


def test_a_path_that_is_none_is_a_usage_error(servepath: Servepath, kubeconfig: Path) -> None:
    assert servepath("stop", "--path", "other", "--kubeconfig", str(kubeconfig)).returncode == 2


def test_a_lifecycle_is_printed_with_units_failures_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    commands._print_lifecycle(
        Lifecycle(
            (
                Measurement("stop", "raw", "s", 8.5, (8.5,), "how"),
                Measurement("stop", "kserve", "s", 9.25, (9.25,), "how"),
                Measurement("control_plane_memory", "kserve/manager", "bytes", 85e6, (85e6,), "how"),
            ),
            (Rollout("raw", "Recreate", 120, 92, 45.9, 60.5, ()),),
            ("update of kserve, RollingUpdate: Unschedulable",),
        )
    )
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()][:3] == [
        ["stop"],
        ["raw", "8.5", "s"],
        ["kserve", "9.2", "s"],
    ]
    assert "raw, Recreate  92 of 120 failed, 45.9 s down" in printed.out
    assert "not measured: update of kserve, RollingUpdate: Unschedulable" in printed.err
