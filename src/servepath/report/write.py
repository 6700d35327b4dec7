"""Writes the report directory, and reads a report and its samples back."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servepath.errors import InputError
from servepath.redaction import redact
from servepath.report.document import document_of, plain, secrets_of
from servepath.report.html import html_page
from servepath.report.junit import junit_xml
from servepath.report.markdown import markdown_page
from servepath.report.model import SCHEMA
from servepath.report.samples import KeptSamples, kept_samples, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from servepath.bench.model import Sample
    from servepath.report.model import Report

REPORT_FILE = "report.json"
SAMPLES_FILE = "samples.json.zst"
JUNIT_FILE = "junit.xml"
MARKDOWN_FILE = "report.md"
HTML_FILE = "report.html"


def write_report(report: Report, directory: Path) -> None:
    """Writes `report.json`, `samples.json.zst`, `junit.xml`, `report.md` and `report.html`.

    Each file is complete or not there; the one that machines gate on comes first. Files of an earlier run are replaced.

    Raises:
        InputError: the directory cannot be written.
    """
    kept = _without_secrets(kept_samples(report), secrets_of(report))
    packed = pack(kept)
    document = {**document_of(report), "samples": samples_values(kept, packed)}
    files: dict[str, Callable[[], bytes]] = {
        REPORT_FILE: lambda: json_bytes(document),
        SAMPLES_FILE: lambda: packed,
        JUNIT_FILE: lambda: junit_xml(document).encode(),
        MARKDOWN_FILE: lambda: markdown_page(document).encode(),
        HTML_FILE: lambda: html_page(document, kept).encode(),
    }
    write_files("report", directory, files)


def write_files(what: str, directory: Path, files: Mapping[str, Callable[[], bytes]]) -> None:
    """Write files in their order, each complete or not there; the directory is made.

    Args:
        what: what the files are together, for the error.
        directory: where they go.
        files: by name, what makes the content.

    Raises:
        InputError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(directory / name, content())
    except OSError as error:
        raise InputError(
            f"the {what} cannot be written: {error.strerror}",
            where=str(directory),
            expected="a directory that can be written",
            next_command="choose another directory",
        ) from error


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a later run after a kill, sees the old or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_report(path: Path) -> dict[str, Any]:
    """The document of a report directory or of its `report.json`.

    Raises:
        InputError: it is not there, or it is no report of this schema.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(file, f"the report cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        seen = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise _unusable(file, f"its schema is {seen!r}")
    return document


def load_samples(directory: Path) -> KeptSamples:
    """The raw samples of a report directory.

    Raises:
        InputError: they are not there, or no samples of this schema.
    """
    file = directory / SAMPLES_FILE
    try:
        return unpack(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(file, f"the samples cannot be read: {error}") from error


def samples_values(kept: KeptSamples, packed: bytes) -> dict[str, Any]:
    """What `report.json` says of the file of its samples: its digest ties the two together."""
    return {
        "file": SAMPLES_FILE,
        "digest": f"sha256:{hashlib.sha256(packed).hexdigest()}",
        "size_bytes": len(packed),
        "request_count": kept.request_count,
        "token_count": kept.token_count,
    }


def _without_secrets(kept: KeptSamples, secrets: Sequence[str]) -> KeptSamples:
    def clean(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(
            replace(one, error_detail=redact(str(plain(one.error_detail)), secrets)) if one.error_detail else one
            for one in samples
        )

    return replace(
        kept,
        comparison=clean(kept.comparison),
        sweep=clean(kept.sweep),
        canary=tuple(replace(one, error=redact(plain(one.error), secrets)) for one in kept.canary),
        canary_steps=tuple(clean(step) for step in kept.canary_steps),
    )


def json_bytes(document: dict[str, Any]) -> bytes:
    """The document as the files of a report hold it."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _unusable(file: Path, what: str) -> InputError:
    return InputError(what, where=str(file), expected=f"a report of schema {SCHEMA}", next_command="servepath e2e")
