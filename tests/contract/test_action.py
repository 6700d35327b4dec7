"""The composite action for users: pinned, safe, and its script prints what GitHub reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.test_workflows import OWN_ACTION, PINNED, RELEASED_ACTION, UNTRUSTED, VERSIONED, WORKFLOWS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "ci/github/servepath"
TEXT = (FOLDER / "action.yml").read_text()
ACTION: dict[str, Any] = yaml.safe_load(TEXT)
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
NO_NETWORK = ("no such host", "connection refused", "i/o timeout", "network is unreachable")
FAILED = """\
<testsuites><testsuite name="servepath">
<testcase classname="smoke.raw" name="streams: two, at least"><failure message="expected 2; seen 1">50% of it
came</failure></testcase>
<testcase classname="smoke.raw" name="health"/>
</testsuite></testsuites>
"""


def unsafe(action: dict[str, Any]) -> list[str]:
    """What is wrong with a composite action, as a person would say it."""
    found = []
    for step in action["runs"]["steps"]:
        if "uses" in step and not PINNED.match(step["uses"]):
            found.append(f"{step['uses']} is not pinned by commit")
        if "${{" in step.get("run", "") or UNTRUSTED.search(step.get("run", "")):
            found.append(f"{step['name']} puts an expression into a script")
        if "run" in step and "shell" not in step:
            found.append(f"{step['name']} has no shell")
    return found


def test_the_action_is_safe() -> None:
    assert unsafe(ACTION) == []
    lines = [line for line in TEXT.splitlines() if "uses:" in line and not line.startswith("#")]
    assert all(VERSIONED.search(line) for line in lines)


@pytest.mark.parametrize(
    ("sound", "broken", "complaint"),
    [
        ("actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "actions/upload-artifact@v7", "pinned"),
        ('cat "$REPORT/report.md"', 'cat "${{ inputs.report }}/report.md"', "expression"),
        ("shell: bash", "name: no shell", "shell"),
    ],
)
def test_an_unsafe_action_is_found(sound: str, broken: str, complaint: str) -> None:
    assert sound in TEXT
    assert any(complaint in problem for problem in unsafe(yaml.safe_load(TEXT.replace(sound, broken))))


def test_every_input_is_described_and_used() -> None:
    for name, one in ACTION["inputs"].items():
        assert one["description"], name
        assert f"inputs.{name} }}}}" in TEXT, name


def test_the_action_runs_the_module_of_its_own_version() -> None:
    run = ACTION["runs"]["steps"][0]["with"]
    above = run["module"].removeprefix("${{ github.action_path }}/")
    assert (FOLDER / above / "dagger.json").resolve() == ROOT / "dagger.json"


def test_a_failed_check_is_an_annotation(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(FAILED)
    command = [sys.executable, "-I", str(FOLDER / "annotate.py"), str(report)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == (
        "::error title=smoke.raw streams%3A two%2C at least::expected 2; seen 1%0A50%25 of it%0Acame\n"
    )


def test_the_workflow_to_copy_uses_the_action_and_its_inputs() -> None:
    workflow = yaml.safe_load((ROOT / "ci/github/e2e.yml").read_text())
    (step,) = [one for one in workflow["jobs"]["e2e"]["steps"] if one["uses"] == RELEASED_ACTION]
    assert set(step["with"]) <= set(ACTION["inputs"])


def test_this_project_runs_the_action_of_its_own_commit() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert OWN_ACTION in {one.get("uses") for one in workflow["jobs"]["dagger"]["steps"]}
    assert (ROOT / OWN_ACTION / "action.yml").is_file()


def actionlint(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Run actionlint, built by Go from its pinned version."""
    if shutil.which("go") is None:
        pytest.skip("actionlint is built by Go, which is not here")
    command = ["go", "run", ACTIONLINT, "-no-color", *map(str, paths)]
    environment = os.environ | {"GOFLAGS": ""}
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, timeout=900)
    if done.returncode and any(sign in done.stderr for sign in NO_NETWORK):
        pytest.skip(f"actionlint cannot be had: {done.stderr.strip().splitlines()[-1]}")
    return done


def test_actionlint_has_nothing_to_say() -> None:
    done = actionlint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_would_say_something(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text((ROOT / "ci/github/e2e.yml").read_text().replace("runs-on: ubuntu-24.04", "runs-on: ubuntu-0"))
    done = actionlint(broken)
    assert 'label "ubuntu-0" is unknown' in done.stdout
