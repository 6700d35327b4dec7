"""The command line as a user meets it: help, one clear message for each mistake, and the exit code of its class."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pytest

from ci.node.tiny_model import write_tiny_model
from servepath.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMANDS = ("modelcar", "cluster", "platform", "deploy", "delete", "smoke", "bench", "report", "e2e")
DIGEST = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Servepath: TypeAlias = "Callable[..., Ended]"


@pytest.fixture
def servepath(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Servepath:
    """Run the command line as its entry point does."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["servepath", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny"
    write_tiny_model(directory)
    return directory


@pytest.fixture
def nobody() -> str:
    """The address of a loopback port that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def kubeconfig(tmp_path: Path, nobody: str) -> Path:
    path = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://{nobody}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(document))
    return path


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
        (["cluster", "--kubeconfig", "nowhere"], 5, "nowhere"),
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
