"""A cluster of our own on a real engine: the whole job, and each of its stages alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.engine.leaks import PRIVATE_KEYS, leaks

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.engine.access_log import AccessLog
    from tests.engine.conftest import Dagger

FILES = {"report.json", "report.md", "report.html", "junit.xml"}


@dataclass(frozen=True, slots=True)
class WholeJob:
    """`prove`, with arguments that fit 2 cores and a model that knows nothing."""

    dagger: Dagger
    arguments: list[str]

    def run(self, report: Path) -> subprocess.CompletedProcess[str]:
        """Do it on a new cluster, whatever comes of it."""
        return self.dagger.run("call", "prove", *self.arguments, "export", f"--path={report}")


@pytest.fixture(scope="module")
def job(dagger: Dagger, model: Path, gateway_class: str) -> WholeJob:
    """The whole job."""
    small = ["--profile=cpu_small", "--expected-answer=", f"--gateway-class={gateway_class}"]
    return WholeJob(dagger, [f"--source={model}", *small])


@pytest.fixture(scope="module")
def first(job: WholeJob, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The whole job, done once, and its report."""
    report = tmp_path_factory.mktemp("first") / "report"
    return job.run(report), report


def test_the_whole_job_on_a_new_cluster(first: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path) -> None:
    done, exported = first
    assert done.returncode == 0, done.stderr[-4000:]
    assert {path.name for path in exported.iterdir()} >= FILES
    report = json.loads((exported / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert {deployment["path"] for deployment in report["deployments"]} == {"raw", "kserve"}
    (tmp_path / "log").write_text(done.stdout + done.stderr)
    assert leaks(PRIVATE_KEYS, tmp_path) == []
    assert leaks(PRIVATE_KEYS, exported) == []


def test_the_whole_job_again_asks_no_registry(
    first: tuple[subprocess.CompletedProcess[str], Path], job: WholeJob, mirror_log: AccessLog, tmp_path: Path
) -> None:
    assert first[0].returncode == 0
    begin = mirror_log.end
    done = job.run(tmp_path / "report")
    assert done.returncode == 0, done.stderr[-4000:]
    assert mirror_log.since(begin) == []


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


def test_a_second_cluster_has_the_images_of_the_first(
    dagger: Dagger, model: Path, gateway_class: str, tmp_path: Path
) -> None:
    chain = ["cluster", f"--gateway-class={gateway_class}", "with-model", f"--source={model}", "--profile=cpu_small"]
    for name in ("first", "second"):
        dagger.call(*chain, "diagnostics", "export", f"--path={tmp_path / name}")
    lines = (tmp_path / "second/events/servepath.txt").read_text().splitlines()
    assert any("already present on machine" in line and "vllm" in line for line in lines)
    assert not any("Pulling image" in line and "vllm" in line for line in lines)
