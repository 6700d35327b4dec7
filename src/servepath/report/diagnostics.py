"""The telling lines of a failed run's diagnostics: what a person would look for first in its logs and events.

Reads what `servepath.cluster.diagnostics.collect` writes. Best effort: what cannot be read is not quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from servepath.redaction import redact_looks
from servepath.report.model import Quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

MAX_QUOTES = 8
MAX_LINE_CHARS = 400
LAST_LOG_LINES = 12
ERROR_LINES = 6
EVENT_LINES = 10
TELLING = re.compile(r"\b(error|exception|traceback|fatal|panic|killed|denied|refused|oom\w*)\b|Error:", re.IGNORECASE)
WARNING = re.compile(r"^\S* ?Warning ")


@dataclass(frozen=True, slots=True)
class _Container:
    """A container that is not well, and why, in words; `restarted` when the log before its restart tells more."""

    pod: str
    name: str
    why: str
    restarted: bool


def read_quotes(directory: Path, folder: str) -> tuple[Quote, ...]:
    """Quotes the diagnostics in a folder of a report directory, most telling first, secrets replaced.

    Args:
        directory: of the report.
        folder: the name of the folder below it.

    Returns:
        At most `MAX_QUOTES`: the ends of the logs of containers that are not well, warnings of the namespaces, lines
        of other logs that tell of an error, and what could not be collected.
    """
    found = _all_quotes(directory / folder)
    quotes = (
        Quote(f"{folder}/{file.relative_to(directory / folder).as_posix()}", about, _shown(lines), count)
        for file, about, lines, count in found
        if lines
    )
    return tuple(quote for _, quote in zip(range(MAX_QUOTES), quotes, strict=False))


def _all_quotes(root: Path) -> Iterator[tuple[Path, str, list[str], int]]:
    unwell = [(pods.parent.name, one) for pods in sorted(root.glob("objects/*/pods.yaml")) for one in _unwell(pods)]
    quoted = set()
    for namespace, container in unwell:
        file = _log_of(root / "logs" / namespace, container)
        if file is not None:
            quoted.add(file)
            lines = _lines(file)
            yield (
                file,
                f"container {container.name} of pod {container.pod}: {container.why}",
                _end_of(lines),
                len(lines),
            )
    for file in sorted(root.glob("events/*.txt")):
        lines = _lines(file)
        warnings = [line for line in lines if WARNING.match(line)]
        yield file, f"warnings of namespace {file.stem}", warnings[-EVENT_LINES:], len(lines)
    for file in sorted(set(root.glob("logs/*/*.log")) - quoted):
        lines = _lines(file)
        telling = [line for line in lines if TELLING.search(line)]
        yield file, f"errors in the log of {file.stem}", telling[-ERROR_LINES:], len(lines)
    lines = _lines(root / "problems.txt")
    yield root / "problems.txt", "what could not be collected", lines[:EVENT_LINES], len(lines)


def _end_of(lines: Sequence[str]) -> list[str]:
    """The last lines of a log, and the telling ones before them."""
    before = [line for line in lines[:-LAST_LOG_LINES] if TELLING.search(line)]
    return [*before[-ERROR_LINES:], *lines[-LAST_LOG_LINES:]]


def _log_of(folder: Path, container: _Container) -> Path | None:
    names = [f"{container.pod}.{container.name}.log"]
    if container.restarted:
        names.insert(0, f"{container.pod}.{container.name}.previous.log")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _unwell(pods: Path) -> Iterator[_Container]:
    for pod in _objects(pods):
        status = pod.get("status") or {}
        for kind in ("initContainerStatuses", "containerStatuses"):
            for one in status.get(kind) or []:
                why = _why(one, is_init=kind == "initContainerStatuses")
                if why:
                    yield _Container(pod["metadata"]["name"], one["name"], why, bool(one.get("restartCount")))


def _why(status: dict[str, Any], *, is_init: bool) -> str:
    """Why a container is not well, empty when it is."""
    state = status.get("state") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    reasons = []
    if ended.get("exitCode"):
        reasons.append(f"{ended.get('reason') or 'ended'}, exit code {ended['exitCode']}")
    if state.get("waiting"):
        reasons.append(state["waiting"].get("reason") or "waiting")
    elif state.get("running") and not status.get("ready") and not is_init:
        reasons.append("running, not ready")
    if reasons and status.get("restartCount"):
        reasons.append(f"restarted {status['restartCount']} times")
    return ", ".join(reasons)


def _objects(file: Path) -> list[dict[str, Any]]:
    try:
        return [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if isinstance(one, dict)]
    except (OSError, ValueError, yaml.YAMLError):
        return []


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def _shown(lines: Iterable[str]) -> tuple[str, ...]:
    """Secrets go before a line is cut, since half of one would not be found."""
    clean = (redact_looks(line) for line in lines)
    return tuple(line if len(line) <= MAX_LINE_CHARS else line[:MAX_LINE_CHARS] + "…" for line in clean)
