"""The command line as a user meets it: help, one clear message for each mistake, and the exit code of its class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from servepath.report.write import write_report
from tests.unit.report.example_runs import failed_run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Servepath

COMMANDS = (
    "modelcar",
    "verify",
    "copy",
    "cluster",
    "platform",
    "deploy",
    "delete",
    "smoke",
    "bench",
    "sweep",
    "report",
    "e2e",
)
LLMD = ["deploy", "--path", "llm-d", "--kubeconfig", "nowhere", "--modelcar", f"r.test/m@sha256:{'a' * 64}"]
DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(servepath: Servepath, command: str) -> None:
    done = servepath(command, "--help")
    assert done.returncode == 0
    assert "Usage: " in done.stdout
    assert "Example: servepath" in done.stdout
    assert command in servepath("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["modelcar", "--source", "nowhere", "--layout", "out"], 3, "nowhere: no such directory"),
        (["modelcar", "--layout", "out"], 2, "expected exactly one of them"),
        (["modelcar", "--source", "x", "--hub", "a/b@c", "--layout", "out"], 2, "expected exactly one of them"),
        (["modelcar", "--source", "x"], 2, "--layout and --push"),
        (["modelcar", "--hub", "a/b@main", "--layout", "out"], 3, "commit"),
        (["report", "nowhere"], 3, "the report cannot be read"),
        (["deploy", "--path", "raw", "--kubeconfig", "k", "--profile", "huge"], 2, "no profile is named 'huge'"),
        (["bench", "--kubeconfig", "k", "--blocks", "1"], 2, "blocks is 1"),
        (["sweep", "--kubeconfig", "k", "--rate", "2", "--rate", "1"], 2, "the rates do not rise"),
        (["cluster", "--kubeconfig", "nowhere"], 5, "nowhere"),
        (["modelcar", "--source", "x", "--push", "host-alone"], 2, "expected HOST/REPOSITORY"),
        (["modelcar", "--source", "x", "--layout", "o", "--reshard", "5 apples"], 2, "not a size: '5 apples'"),
        (["modelcar", "--source", "x", "--layout", "o", "--reshard", "0MB"], 2, "expected a size such as 500MB"),
        (["modelcar", "--source", "x", "--layout", "o", "--platform", "arm64"], 2, "not a platform: 'arm64'"),
        (["modelcar", "--source", "x", "--layout", "o", "--compression", "lz4"], 2, "lz4"),
        (["modelcar", "--source", "x", "--layout", "o", "--tag", "a/b"], 2, "not a tag: 'a/b'"),
        (["modelcar", "--hub", "a/b@c", "--layout", "o", "--allow-pickle"], 2, "expected --source"),
        (["modelcar", "--source", "x", "--layout", "o", "--include", "*.json"], 2, "expected --hub"),
        (["deploy", "--path", "raw", "--kubeconfig", "k", "--modelcar", "m", "--hub", "h"], 2, "exactly one of them"),
        (["deploy", "--path", "raw", "--kubeconfig", "k", "--source", "m"], 2, "a model needs a registry"),
        (["deploy", "--path", "raw", "--kubeconfig", "k", "--namespace", "Not_A_Label"], 2, "is not a DNS label"),
        (["deploy", "--path", "raw", "--kubeconfig", "k", "--api-key", "x"], 2, "No such option"),
        (["deploy", "--path", "raw", "--kubeconfig", "k", "--min-replicas", "0"], 2, "nobody to decide"),
        (["deploy", "--path", "raw", "--kubeconfig", "k", "--autoscaler", "vpa"], 2, "vpa"),
        ([*LLMD, "--autoscaler", "hpa", "--max-replicas", "2"], 2, "the llm-d path is not autoscaled"),
        (LLMD, 5, "nowhere"),
        (["e2e", "--kubeconfig", "k", "--registry", "r"], 2, "expected exactly one of them"),
        (["smoke", "--kubeconfig", "k", "--report", __file__], 3, "the report cannot be written"),
        (["bench", "--kubeconfig", "k", "--report", f"{__file__}/x"], 3, "the report cannot be written"),
        (["cluster", "--kubeconfig", "k", "--diagnostics", __file__], 3, "File exists"),
        (["verify", "registry.example/a/b:v1"], 3, "named by tag"),
        (["verify", f"registry.example/a/b@{DIGEST}", "--require", "love"], 2, "expected sbom or provenance"),
        (["copy", "registry.example/a/b:v1", "registry.example/c"], 3, "named by tag"),
        (["copy", f"registry.example/a/b@{DIGEST}", "registry.example"], 2, "expected HOST/REPOSITORY"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_a_mistake_gives_one_message_and_its_class_of_exit_code(
    servepath: Servepath, arguments: list[str], exit_code: int, message: str
) -> None:
    done = servepath(*arguments)
    assert done.returncode == exit_code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "next: " in done.stderr or "Try '" in done.stderr


def test_a_registry_that_is_down_is_exit_code_4(servepath: Servepath, model: Path, nobody: str) -> None:
    base = f"{nobody}/busybox@{DIGEST}"
    done = servepath("modelcar", "--source", str(model), "--base-image", base, "--push", f"{nobody}/a/b")
    assert done.returncode == 4, done.stderr
    assert nobody in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_does_not_answer_is_exit_code_5(servepath: Servepath, kubeconfig: Path) -> None:
    done = servepath("cluster", "--kubeconfig", str(kubeconfig))
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr


def test_a_model_that_cannot_be_served_is_refused_before_anything_else_and_reported(
    servepath: Servepath, model: Path, kubeconfig: Path, nobody: str, tmp_path: Path
) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    report = tmp_path / "report"
    done = servepath(
        *("e2e", "--source", str(model), "--kubeconfig", str(kubeconfig), "--registry", nobody),
        *("--base-image", f"{nobody}/busybox@{DIGEST}", "--report", str(report)),
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads((report / "report.json").read_text())
    assert document["verdict"] == "fail"
    assert document["error"]["exit_code"] == 3
    assert document["error"]["what"] in done.stderr
    assert [stage["verdict"] for stage in document["stages"]] == ["fail"]


def test_a_report_that_failed_is_printed_with_exit_code_6(
    servepath: Servepath, model: Path, kubeconfig: Path, nobody: str, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    (model / "model.safetensors").unlink()
    servepath(
        *("e2e", "--source", str(model), "--kubeconfig", str(kubeconfig), "--registry", nobody),
        *("--base-image", f"{nobody}/busybox@{DIGEST}", "--report", str(report)),
    )
    done = servepath("report", str(report))
    assert done.returncode == 6
    assert "fail" in done.stdout.lower()
    assert json.loads(servepath("report", str(report), "--json").stdout)["schema"] == "servepath/v1"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--namespace", "Not_A_Label"], 2, "is not a DNS label"),
        (["--engine-image", "engine:latest"], 2, "is not pinned by digest"),
        (["--context", "nope"], 5, "Context 'nope' not found"),
        (["--kubeconfig", __file__], 5, "not a kubeconfig"),
        (["--kubeconfig", "nowhere"], 5, "nowhere"),
    ],
)
def test_e2e_refuses_what_cannot_be_deployed_before_the_model_is_read(
    servepath: Servepath,
    kubeconfig: Path,
    nobody: str,
    tmp_path: Path,
    arguments: list[str],
    exit_code: int,
    message: str,
) -> None:
    done = servepath(
        *("e2e", "--source", "not-read", "--kubeconfig", str(kubeconfig), "--registry", nobody),
        *("--base-image", f"{nobody}/busybox@{DIGEST}", "--engine-image", f"{nobody}/engine@{DIGEST}"),
        *("--report", str(tmp_path / "report"), *arguments),
    )
    assert done.returncode == exit_code, done.stderr
    assert message in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert document["error"]["exit_code"] == exit_code
    assert document["stages"] == []


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_report_path_that_is_a_file_is_refused_before_anything_is_done(
    servepath: Servepath, kubeconfig: Path, nobody: str, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_text("mine")
    done = servepath(
        *("e2e", "--source", "not-read", "--kubeconfig", str(kubeconfig), "--registry", nobody),
        *("--report", f"{tmp_path}/file{below}"),
    )
    assert done.returncode == 3
    assert "the report cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_stage_that_an_error_ends_reports_it(servepath: Servepath, kubeconfig: Path, tmp_path: Path) -> None:
    done = servepath("smoke", "--kubeconfig", str(kubeconfig), "--report", str(tmp_path / "report"))
    assert done.returncode == 5, done.stderr
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert document["verdict"] == "fail"
    assert document["error"]["exit_code"] == 5
    assert document["error"]["what"] in done.stderr


def test_a_report_is_named_by_its_directory_or_its_file(servepath: Servepath, tmp_path: Path) -> None:
    write_report(failed_run(), tmp_path)
    for named in (tmp_path, tmp_path / "report.json"):
        done = servepath("report", str(named), "--recompute")
        assert done.returncode == 6, done.stderr
        assert "the same numbers" in done.stderr
