"""Workflows: actions pinned by commit, least permissions, one run at a time, no untrusted text in a script."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
WORKFLOWS = sorted([*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("ci/github/*.yml")])
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
VERSIONED = re.compile(r"uses: *\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
OWN_ACTION = "./ci/github/servepath"
"""Of the very commit that is checked out: it needs no pin."""
RELEASED_ACTION = f"OWNER/servepath/ci/github/servepath@v{VERSION}"
"""What a user's copy names: the release that the copied file is part of, whose commit it cannot hold."""
UNTRUSTED = re.compile(r"\$\{\{[^}]*(github\.(event|head_ref|ref_name|actor)|inputs\.)")


def problems(text: str) -> list[str]:
    """What is wrong with a workflow, as a person would say it."""
    workflow: dict[Any, Any] = yaml.safe_load(text)
    found = [
        f"{line.strip()} has no version behind its commit"
        for line in text.splitlines()
        if "uses:" in line
        and not line.lstrip().startswith("#")
        and not VERSIONED.search(line)
        and line.rpartition("uses: ")[2] not in {OWN_ACTION, RELEASED_ACTION}
    ]
    if workflow.get("permissions") != {"contents": "read"}:
        found.append("permissions are not exactly contents: read")
    if "concurrency" not in workflow:
        found.append("no concurrency group")
    for name, job in workflow["jobs"].items():
        if "timeout-minutes" not in job:
            found.append(f"job {name} has no timeout")
        for step in job["steps"]:
            if "uses" in step and not (PINNED.match(step["uses"]) or step["uses"] in {OWN_ACTION, RELEASED_ACTION}):
                found.append(f"{step['uses']} is not pinned by commit")
            if UNTRUSTED.search(step.get("run", "")):
                found.append(f"job {name} puts text of an event into a script")
            checkout = str(step.get("uses", "")).startswith("actions/checkout@")
            if checkout and step.get("with", {}).get("persist-credentials") is not False:
                found.append(f"job {name} leaves its token in the checkout")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_safe(path: Path) -> None:
    assert problems(path.read_text()) == []


def test_there_are_workflows_for_the_project_and_for_users() -> None:
    assert {path.name for path in WORKFLOWS} >= {"test.yml", "e2e.yml", "promote.yml"}


@pytest.mark.parametrize(
    ("sound", "broken", "complaint"),
    [
        ("actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "actions/checkout@v7", "not pinned"),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1", "no version"),
        ("contents: read", "contents: write", "permissions"),
        ("concurrency:", "x-concurrency:", "concurrency"),
        ("timeout-minutes:", "x-timeout-minutes:", "timeout"),
        ("persist-credentials: false", "persist-credentials: true", "token"),
        (RELEASED_ACTION, "OWNER/servepath/ci/github/servepath@v0.0.1", "no version"),
        (RELEASED_ACTION, "OWNER/servepath/ci/github/servepath@main", "not pinned"),
        ("uses: OWNER/", "run: echo ${{ github.event.issue.title }} # uses: OWNER/", "event"),
        ("uses: OWNER/", "run: echo ${{ inputs.source }} # uses: OWNER/", "event"),
    ],
)
def test_a_broken_workflow_is_found(sound: str, broken: str, complaint: str) -> None:
    text = (ROOT / "ci/github/e2e.yml").read_text()
    assert sound in text
    assert any(complaint in problem for problem in problems(text.replace(sound, broken)))


def test_the_engine_version_is_the_same_everywhere() -> None:
    module = yaml.safe_load((ROOT / "dagger.json").read_text())["engineVersion"]
    action = yaml.safe_load((ROOT / "ci/github/servepath/action.yml").read_text())["inputs"]["dagger-version"][
        "default"
    ]
    sdk = re.search(r'"dagger-io==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert sdk is not None
    assert module == action == f"v{sdk[1]}"
