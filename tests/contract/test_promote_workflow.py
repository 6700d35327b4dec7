"""The workflow that promotes: no key, a plan before anything is changed, and an environment that guards the rest."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from servepath.cli.app import app
from tests.contract.test_workflows import ROOT, VERSION

TEXT = (ROOT / "ci/github/promote.yml").read_text()
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
JOBS = WORKFLOW["jobs"]
TRIGGERS = WORKFLOW[True]
"""The key `on` is a boolean to YAML 1.1."""


def test_it_can_be_called_and_started_by_hand_with_the_same_inputs() -> None:
    assert TRIGGERS["workflow_call"]["inputs"] == TRIGGERS["workflow_dispatch"]["inputs"]
    for name in TRIGGERS["workflow_call"]["inputs"]:
        assert re.search(rf"inputs\.{name}\b", TEXT), name


def test_the_plan_comes_first_and_the_environment_guards_what_acts() -> None:
    assert "environment" not in JOBS["plan"]
    assert JOBS["apply"]["environment"] == "${{ inputs.environment }}"
    assert (JOBS["apply"]["needs"], JOBS["apply"]["if"]) == ("plan", "${{ inputs.apply }}")
    assert JOBS["apply"]["steps"] == JOBS["plan"]["steps"]
    (run,) = [step for step in JOBS["plan"]["steps"] if "servepath promote" in step.get("run", "")]
    assert run["env"]["APPLY"] == "${{ github.job == 'apply' && '--apply' || '' }}"
    assert "--apply" not in run["run"]


def test_google_is_asked_without_a_key() -> None:
    for job in JOBS.values():
        writes = {scope for scope, access in job["permissions"].items() if access == "write"}
        assert writes == {"id-token"}
    assert "credentials_json" not in TEXT
    assert "secrets." not in TEXT


def test_a_promotion_is_not_cut_off_half_way() -> None:
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is False


def test_it_runs_the_release_that_it_is_part_of() -> None:
    (checkout,) = [step for step in JOBS["plan"]["steps"] if "actions/checkout@" in step.get("uses", "")]
    assert checkout["with"]["ref"] == f"v{VERSION}"


def test_the_command_has_the_options_that_are_given() -> None:
    if "promote" not in CliRunner().invoke(app, ["--help"]).stdout:
        pytest.skip("there is no `servepath promote` yet")
    known = CliRunner().invoke(app, ["promote", "--help"], env={"COLUMNS": "200"}).stdout
    (run,) = [step["run"] for step in JOBS["plan"]["steps"] if "servepath promote" in step.get("run", "")]
    asked = set(re.findall(r"--[a-z-]+", run.partition("servepath promote")[2])) | {"--apply"}
    assert not {option for option in asked if not re.search(rf"{option}\b", known)}
