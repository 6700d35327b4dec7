"""One place pins: what is pinned elsewhere must be the same, and Renovate must see all of it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import servepath

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "manifests" / "lock.yaml").read_text()
RENOVATE = json.loads((ROOT / "renovate.json").read_text())


def matches(file: str, group: str = "currentValue") -> set[str]:
    """The current values, or another group, that Renovate's own managers find in a file."""
    found = set()
    for manager in RENOVATE["customManagers"]:
        if not any(re.search(pattern.strip("/"), file) for pattern in manager["managerFilePatterns"]):
            continue
        for pattern in manager["matchStrings"]:
            expression = re.compile(pattern.replace("(?<", "(?P<"))
            found |= {hit[group] for hit in expression.finditer((ROOT / file).read_text())}
    return found


@pytest.mark.parametrize("project", ["pyproject.toml", "examples/python/pyproject.toml"])
def test_the_runtime_s_image_is_the_lock_s(project: str) -> None:
    base = tomllib.loads((ROOT / project).read_text())["tool"]["dagger"]["base-image"]
    assert base == yaml.safe_load(LOCK)["images"]["python"]["image"]


def test_the_package_knows_its_version() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == servepath.__version__


def test_the_example_runs_on_the_same_engine() -> None:
    versions = {
        json.loads((ROOT / file).read_text())["engineVersion"]
        for file in ("dagger.json", "examples/python/dagger.json")
    }
    assert len(versions) == 1


def test_the_example_s_lock_holds_what_its_project_wants() -> None:
    project = tomllib.loads((ROOT / "examples/python/pyproject.toml").read_text())
    locked = tomllib.loads((ROOT / "examples/python/uv.lock").read_text())
    (constraint,) = project["tool"]["uv"]["constraint-dependencies"]
    assert [one["name"] + one["specifier"] for one in locked["manifest"]["constraints"]] == [constraint]
    (example,) = (one for one in locked["package"] if one["name"] == project["project"]["name"])
    assert [one["name"] for one in example["dependencies"]] == project["project"]["dependencies"]


def test_renovate_sees_every_pinned_image_of_the_lock() -> None:
    images = [entry["image"] for entry in yaml.safe_load(LOCK)["images"].values()]
    tagged = {image.partition("@")[0].rpartition(":")[2] for image in images if re.search(r":[^/@]+@", image)}
    assert tagged
    assert tagged <= matches("manifests/lock.yaml")


def test_renovate_sees_every_chart_of_the_lock() -> None:
    charts = yaml.safe_load(LOCK)["charts"].values()
    seen = matches("manifests/lock.yaml", "depName")
    assert {chart["chart"].removeprefix("oci://") for chart in charts} <= seen
    assert {chart["version"] for chart in charts} <= matches("manifests/lock.yaml")


def test_renovate_sees_the_engine_and_the_runtime_s_image() -> None:
    engine = json.loads((ROOT / "dagger.json").read_text())["engineVersion"]
    assert matches("dagger.json") == matches("ci/github/servepath/action.yml") == {engine}
    assert len(matches("pyproject.toml")) == 1
