from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from servepath.redaction import redact_looks
from servepath.report.diagnostics import MAX_LINE_CHARS, MAX_QUOTES, read_quotes
from servepath.report.write import write_report
from tests.unit.report.example_runs import API_KEY, stopped_run

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "diagnostics"


def status(name: str, state: dict[str, Any], restarts: int = 0, *, ready: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "restartCount": restarts, "ready": ready, **more}


RUNNING = {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


def pod(name: str, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"containerStatuses": containers, "initContainerStatuses": init}}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = directory / FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def pods_yaml(*pods: dict[str, Any]) -> str:
    return yaml.safe_dump_all(json.loads(json.dumps(pods)))


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    log = [f"INFO line {number}" for number in range(100)]
    log[20] = "ERROR the weights do not fit; token=abcdef123456"
    write(
        tmp_path,
        {
            "objects/servepath/pods.yaml": pods_yaml(
                pod(
                    "well",
                    status("engine", RUNNING, ready=True),
                    init=(status("fetch", {"terminated": {"exitCode": 0}}),),
                ),
                pod("ill", status("engine", {"waiting": {"reason": "CrashLoopBackOff"}}, 3, lastState=OOM)),
                pod("slow", status("engine", RUNNING)),
            ),
            "logs/servepath/ill.engine.log": "started again\n",
            "logs/servepath/ill.engine.previous.log": "\n".join(log),
            "logs/servepath/slow.engine.log": "loading\n",
            "logs/servepath/well.engine.log": "INFO fine\nValueError: one request was bad\nINFO fine\n",
            "events/servepath.txt": "2026-01-02T03:04:05Z Normal Pulled Pod/well: ok\n"
            "2026-01-02T03:04:06Z Warning BackOff Pod/ill: back-off restarting (x7)\n",
            "problems.txt": "logs of gateway: HTTP 500\n",
        },
    )
    return tmp_path


def test_the_telling_lines_come_with_what_they_are_about(collected: Path) -> None:
    quotes = read_quotes(collected, FOLDER)
    assert [(quote.file, quote.about) for quote in quotes] == [
        (
            "diagnostics/logs/servepath/ill.engine.previous.log",
            "container engine of pod ill: OOMKilled, exit code 137, CrashLoopBackOff, restarted 3 times",
        ),
        ("diagnostics/logs/servepath/slow.engine.log", "container engine of pod slow: running, not ready"),
        ("diagnostics/events/servepath.txt", "warnings of namespace servepath"),
        ("diagnostics/logs/servepath/well.engine.log", "errors in the log of well.engine"),
        ("diagnostics/problems.txt", "what could not be collected"),
    ]
    assert quotes[0].lines == (
        "ERROR the weights do not fit; token=[redacted]",
        *(f"INFO line {number}" for number in range(88, 100)),
    )
    assert quotes[0].line_count == 100
    assert quotes[2].lines == ("2026-01-02T03:04:06Z Warning BackOff Pod/ill: back-off restarting (x7)",)
    assert quotes[3].lines == ("ValueError: one request was bad",)


def test_they_are_in_every_page_of_the_report_and_the_key_in_none(collected: Path) -> None:
    write(collected, {"logs/servepath/slow.engine.log": f"loading with {API_KEY}\n"})
    write_report(replace(stopped_run(), quotes=read_quotes(collected, FOLDER)), collected)
    for name in ("report.json", "report.html", "report.md", "junit.xml"):
        text = (collected / name).read_text()
        assert API_KEY not in text, name
        assert "ERROR the weights do not fit" in text, name
        assert "diagnostics/logs/servepath/ill.engine.previous.log" in text, name
        assert "loading with [redacted]" in text, name


@pytest.mark.parametrize(
    "text", ["", "{", "a: [", "--- 1\n--- 2\n", pods_yaml({"metadata": {"name": "x"}, "status": None})]
)
def test_what_cannot_be_read_is_not_quoted(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"objects/servepath/pods.yaml": text})
    assert read_quotes(tmp_path, FOLDER) == ()
    assert read_quotes(tmp_path, "nothing-here") == ()


def test_a_big_cluster_gives_few_and_short_quotes(tmp_path: Path) -> None:
    write(tmp_path, {f"logs/servepath/p{number}.c.log": "Error: " + "x" * 5000 for number in range(30)})
    quotes = read_quotes(tmp_path, FOLDER)
    assert len(quotes) == MAX_QUOTES
    assert all(len(line) <= MAX_LINE_CHARS + 1 for quote in quotes for line in quote.lines)


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer {}",
        "authorization: basic {}",
        "--api-key {} --port 8000",
        "VLLM_API_KEY={}",
        "'api_key': ['{}']",
        '"hf_token": "{}"',
        "password: {}",
        "pulling https://user:{}@registry.test/v2/",
    ],
)
def test_what_looks_like_a_secret_is_replaced(line: str) -> None:
    secret = "Zq8-wk2_Lm91xRt"
    assert secret not in redact_looks(line.format(secret))
    assert "[redacted]" in redact_looks(line.format(secret))


@pytest.mark.parametrize("secret", ["hf_abcdefghijklmnop", "sk-0123456789abcdef", "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0"])
def test_a_secret_is_known_by_its_looks_alone(secret: str) -> None:
    assert secret not in redact_looks(f"it said {secret} there")


@pytest.mark.parametrize(
    "line", ["INFO 256 prompt tokens, 128 output tokens", "tokenizer.json loaded", "http://172.30.0.2:80/v1/models"]
)
def test_ordinary_lines_stay(line: str) -> None:
    assert redact_looks(line) == line
