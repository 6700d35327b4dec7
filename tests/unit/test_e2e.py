"""The ends of a run: whatever ends it, there is a report that says so, and the exit code is its class's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from ci.node.tiny_model import write_tiny_model
from servepath import e2e
from servepath.bench.slo import Slo, evaluate
from servepath.cli.output import print_outcome
from servepath.errors import (
    CheckFailedError,
    ClusterError,
    InputError,
    RegistryError,
    ServepathError,
    SloMissedError,
    UsageError,
    first_servepath_error,
)
from servepath.evidence import StageTiming, Verdict
from servepath.modelcar.source.hub import HubOptions
from servepath.report.model import Report, report_error
from servepath.report.write import write_report
from servepath.serving.profiles import CPU_SMALL
from servepath.stages import Stages
from tests.unit.cli.conftest import write_kubeconfig
from tests.unit.modelcar.helpers import write_base
from tests.unit.modelcar.registries import running_registry
from tests.unit.report.example_runs import API_KEY, RUN, failed_run, passed_run
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Silent:
    """An observer that shows nothing."""

    def started(self, name: str) -> None: ...
    def noted(self, name: str, detail: str) -> None: ...
    def ended(self, timing: StageTiming) -> None: ...


@pytest.fixture
def request_(tmp_path: Path, nobody: str) -> e2e.E2eRequest:
    """A request whose registry and API server do not answer."""
    write_tiny_model(tmp_path / "model")
    return e2e.E2eRequest(
        kubeconfig=write_kubeconfig(tmp_path / "kubeconfig", nobody),
        registry=nobody,
        base_image=anyio.run(write_base, tmp_path / "base"),
        engine_image=f"{nobody}/engine@{DIGEST}",
        profile=CPU_SMALL,
        report_directory=tmp_path / "report",
        model_directory=tmp_path / "model",
    )


def document_of(request: e2e.E2eRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((request.report_directory / "report.json").read_text())
    return document


def stages() -> Stages:
    return Stages(Silent(), 0.0)


@contextmanager
def registry_that(answers: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A registry on loopback whose every answer is given by a function."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            answers(self)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None: ...

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"127.0.0.1:{server.server_address[1]}"


@contextmanager
def registry_that_hangs() -> Iterator[tuple[str, Callable[[], None]]]:
    """A registry that takes connections and never answers, and a function that returns once it was asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        taken: list[socket.socket] = []

        def asked() -> None:
            taken.append(server.accept()[0])
            taken[-1].settimeout(30)
            assert taken[-1].recv(1)

        yield f"127.0.0.1:{server.getsockname()[1]}", asked
        for one in taken:
            one.close()


@pytest.mark.parametrize(
    ("report", "exit_code"),
    [
        (passed_run(), 0),
        (failed_run(), 6),
        (replace(passed_run(), slo=evaluate(passed_run().comparison, Slo(ttft_p95_s=1e-6))), 7),  # type: ignore[arg-type]
        (Report(RUN), 6),
        *(
            (replace(failed_run(), error=report_error(error)), exit_code)
            for error, exit_code in [
                (UsageError("x"), 2),
                (InputError("x"), 3),
                (RegistryError("x"), 4),
                (ClusterError("x"), 5),
                (CheckFailedError("x"), 6),
                (SloMissedError("x"), 7),
                (KeyboardInterrupt(), 130),
                (ZeroDivisionError("x"), 1),
                (ExceptionGroup("x", [ExceptionGroup("y", [ClusterError("z")])]), 5),
            ]
        ),
    ],
)
def test_the_exit_code_is_that_of_what_ended_the_run(report: Report, exit_code: int) -> None:
    assert e2e.exit_code_of(report) == exit_code
    assert (report.verdict is Verdict.PASS) == (exit_code == 0)


async def test_a_cancelled_run_is_reported_as_interrupted_and_stays_cancelled(request_: e2e.E2eRequest) -> None:
    with registry_that_hangs() as (address, asked):
        async with anyio.create_task_group() as group:

            async def interrupt() -> None:
                await anyio.to_thread.run_sync(asked)
                assert document_of(request_)["error"]["what"] == "the run has not come to its end"
                group.cancel_scope.cancel()

            group.start_soon(interrupt)
            await e2e.run(replace(request_, registry=address), RUN, stages())
    assert group.cancel_scope.cancelled_caught
    document = document_of(request_)
    assert document["verdict"] == "fail"
    assert document["error"]["what"] == "interrupted"
    assert document["error"]["exit_code"] == 130
    assert [(one["name"], one["verdict"]) for one in document["stages"]] == [("model", "pass"), ("modelcar", "fail")]


async def test_a_registry_that_refuses_in_the_middle_is_exit_code_4(request_: e2e.E2eRequest) -> None:
    asked: list[str] = []

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.command)
        handler.send_response({"GET": 200, "HEAD": 404}.get(handler.command, 403))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with registry_that(refuse) as address:
        report = await e2e.run(replace(request_, registry=address), RUN, stages())
    assert "POST" in asked
    assert e2e.exit_code_of(report) == 4
    document = document_of(request_)
    assert document["error"]["exit_code"] == 4
    assert address in document["error"]["where"] + document["error"]["what"]
    assert document["error"]["next_command"]


async def test_an_api_server_that_does_not_answer_is_exit_code_5_and_the_modelcar_is_in_the_report(
    request_: e2e.E2eRequest, tmp_path: Path
) -> None:
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as address:
        report = await e2e.run(replace(request_, registry=address), RUN, stages())
    assert e2e.exit_code_of(report) == 5
    document = document_of(request_)
    assert document["error"]["exit_code"] == 5
    assert "does not answer" in document["error"]["what"]
    assert document["modelcar"]["reference"].startswith(f"{address}/servepath/model@sha256:")
    assert [one["name"] for one in document["stages"]] == ["model", "modelcar", "platform"]


async def test_a_run_that_is_killed_leaves_no_pass_of_an_earlier_one(request_: e2e.E2eRequest) -> None:
    write_report(passed_run(), request_.report_directory)
    assert document_of(request_)["verdict"] == "pass"
    e2e.begin_report(RUN, request_.report_directory)
    assert document_of(request_)["verdict"] == "fail"
    assert document_of(request_)["deployments"] == []


async def test_a_hub_revision_is_opened_as_the_request_says_here_from_an_empty_cache(
    request_: e2e.E2eRequest, tmp_path: Path
) -> None:
    spec = f"org/model@{'a' * 40}"
    offline = HubOptions(cache=tmp_path / "hub", offline=True)
    report = await e2e.run(replace(request_, model_directory=None, hub=spec, hub_options=offline), RUN, stages())
    assert report.error is not None
    assert report.error.exit_code == InputError.exit_code
    assert spec in f"{report.error.where} {report.error.what}"


def test_the_diagnostics_of_an_earlier_run_go_with_its_report_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / e2e.DIAGNOSTICS).mkdir()
    e2e.begin_report(RUN, tmp_path)
    assert (tmp_path / e2e.DIAGNOSTICS).is_dir(), "no report lay beside it: it was not ours"
    (tmp_path / "mine.txt").write_text("kept")
    e2e.begin_report(RUN, tmp_path)
    assert not (tmp_path / e2e.DIAGNOSTICS).exists()
    assert (tmp_path / "mine.txt").read_text() == "kept"


async def test_a_report_that_cannot_be_written_does_not_hide_what_ended_the_run(request_: e2e.E2eRequest) -> None:
    def take_the_directory_away(handler: BaseHTTPRequestHandler) -> None:
        if request_.report_directory.is_dir():
            shutil.rmtree(request_.report_directory)
            request_.report_directory.write_text("a file now")
        handler.send_response(403)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with registry_that(take_the_directory_away) as address, pytest.raises(InputError) as caught:
        await e2e.run(replace(request_, registry=address), RUN, stages())
    assert "the report cannot be written: File exists; the run had stopped before: " in caught.value.what
    assert "403" in caught.value.what


async def test_what_is_no_error_of_ours_is_raised_after_the_report(
    request_: e2e.E2eRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_directory: Path) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(e2e, "open_source", broken)
    with pytest.raises(ZeroDivisionError):
        await e2e.run(request_, RUN, stages())
    assert document_of(request_)["error"]["what"] == "internal error, ZeroDivisionError: a bug"
    assert document_of(request_)["error"]["exit_code"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_with_130_a_report_and_one_line(
    request_: e2e.E2eRequest, number: signal.Signals
) -> None:
    with registry_that_hangs() as (address, asked):
        command = [
            *(
                "-c",
                f"import signal; signal.signal({number:d}, signal.SIG_DFL); from servepath.cli import main; main()",
            ),
            *("e2e", "--source", str(request_.model_directory)),
            *("--kubeconfig", str(request_.kubeconfig), "--registry", address),
            *("--base-image", request_.base_image, "--engine-image", request_.engine_image),
            *("--report", str(request_.report_directory)),
        ]
        with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True) as running:
            asked()
            running.send_signal(number)
            _, said = running.communicate(timeout=30)
    assert running.returncode == 130, said
    assert "interrupted: putting away what was started" in said
    assert "Traceback" not in said
    assert document_of(request_)["error"]["exit_code"] == 130


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs root to mount a tiny disk")
def test_a_full_disk_is_one_line_and_exit_code_3(request_: e2e.E2eRequest, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=4k tiny {disk} && exec "$0" "$@"'
    command = [
        *("-c", "from servepath.cli import main; main()", "e2e", "--source", str(request_.model_directory)),
        *("--kubeconfig", str(request_.kubeconfig), "--registry", request_.registry, "--report", str(disk / "report")),
    ]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "the report cannot be written: No space left on device" in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_refuses_is_an_input_error_and_another_os_error_is_not() -> None:
    full = OSError(28, "No space left on device", "/data/x")
    found = first_servepath_error(ExceptionGroup("group", [full]))
    assert isinstance(found, InputError)
    assert found.where == "/data/x"
    assert found.next_command
    assert first_servepath_error(ConnectionRefusedError(111, "Connection refused")) is None
    assert first_servepath_error(ValueError("x")) is None


def test_a_planted_key_is_in_no_file_and_in_nothing_that_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaky = replace(failed_run(), error=report_error(ClusterError(f"the engine said {API_KEY}", where=API_KEY)))
    write_report(leaky, tmp_path)
    print_outcome(leaky, tmp_path)
    printed = capsys.readouterr()
    assert "the engine said [redacted]" in printed.err
    assert API_KEY not in printed.err + printed.out
    for path in tmp_path.iterdir():
        assert API_KEY.encode() not in path.read_bytes(), path


def test_a_usage_error_without_a_command_of_its_own_names_the_help() -> None:
    assert UsageError("x").next_command == "servepath --help"
    assert UsageError("x", next_command="y").next_command == "y"
    assert ServepathError("x").next_command == ""
