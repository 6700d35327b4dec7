"""A cluster of our own on a real engine: the whole job, and each of its stages alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.engine.leaks import PRIVATE_KEYS, leaks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import Dagger

FILES = {"report.json", "report.md", "report.html", "junit.xml"}


@pytest.fixture
def small(gateway_class: str) -> list[str]:
    """The arguments of a run that fits 2 cores, of a model that knows nothing."""
    return ["--profile=cpu_small", "--expected-answer=", f"--gateway-class={gateway_class}"]


def test_the_whole_job_on_a_new_cluster(dagger: Dagger, model: Path, small: list[str], tmp_path: Path) -> None:
    done = dagger.run("call", "prove", f"--source={model}", *small, "export", f"--path={tmp_path}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert {deployment["path"] for deployment in report["deployments"]} == {"raw", "kserve"}
    (tmp_path / "log").write_text(done.stdout + done.stderr)
    assert leaks(PRIVATE_KEYS, tmp_path) == []


def test_one_path_alone(dagger: Dagger, model: Path, gateway_class: str) -> None:
    chain = ["cluster", f"--gateway-class={gateway_class}", "deploy", f"--source={model}", "--path=raw"]
    summary = dagger.call(*chain, "--profile=cpu_small", "smoke", "--expected-answer=", "summary")
    assert "raw" in summary


def test_the_two_paths_are_compared_and_nothing_else(
    dagger: Dagger, model: Path, gateway_class: str, tmp_path: Path
) -> None:
    chain = ["cluster", f"--gateway-class={gateway_class}", "with-model", f"--source={model}", "--profile=cpu_small"]
    plan = ["--blocks=8", "--requests-per-block=1", "--rate-per-s=4"]
    dagger.call(*chain, "compare", "--profile=cpu_small", *plan, "report", "export", f"--path={tmp_path}")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {deployment["path"] for deployment in report["deployments"]} == {"raw", "kserve"}
    assert report["comparison"]["paths"]
    assert report["checks"] == []


def test_a_canary_gets_all_the_traffic(
    dagger: Dagger, model: Path, next_model: Path, gateway_class: str, tmp_path: Path
) -> None:
    chain = ["cluster", f"--gateway-class={gateway_class}", "deploy", f"--source={model}", "--profile=cpu_small"]
    plan = ["--steps=50,100", "--hold-s=5", "--rate-per-s=2"]
    dagger.call(*chain, "canary", f"--source={next_model}", *plan, "report", "export", f"--path={tmp_path}")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["canary"]["outcome"] == "promoted"


def test_a_promotion_is_planned(dagger: Dagger, model: Path, gateway_class: str) -> None:
    digest = dagger.call("modelcar", f"--source={model}", "digest")
    cluster = ["cluster", f"--gateway-class={gateway_class}", "with-model", f"--source={model}", "--profile=cpu_small"]
    modelcar = f"--modelcar=registry.localhost:5000/servepath/model@{digest}"
    plan = dagger.call(*cluster, "promote", modelcar, "--profile=cpu_small", "--usd-per-hour=0.7", "summary")
    assert digest in plan
    assert "InferenceService" in plan


def test_a_second_cluster_has_the_images_of_the_first(
    dagger: Dagger, model: Path, gateway_class: str, tmp_path: Path
) -> None:
    chain = ["cluster", f"--gateway-class={gateway_class}", "with-model", f"--source={model}", "--profile=cpu_small"]
    for name in ("first", "second"):
        dagger.call(*chain, "diagnostics", "export", f"--path={tmp_path / name}")
    lines = (tmp_path / "second/events/servepath.txt").read_text().splitlines()
    assert any("already present on machine" in line and "vllm" in line for line in lines)
    assert not any("Pulling image" in line and "vllm" in line for line in lines)
