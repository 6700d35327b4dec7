"""Writes the report directory, reads a report back, and computes its numbers again from the raw samples."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from servepath.bench.analysis import analyse
from servepath.bench.model import Arrivals, BenchPlan, Comparison
from servepath.errors import InputError
from servepath.report.document import SAMPLES_SCHEMA, document_of, sample_of, samples_document_of
from servepath.report.html import html_page
from servepath.report.junit import junit_xml
from servepath.report.markdown import markdown_page
from servepath.report.model import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.bench.model import Sample
    from servepath.report.model import Report

REPORT_FILE = "report.json"
SAMPLES_FILE = "samples.json.zst"
JUNIT_FILE = "junit.xml"
MARKDOWN_FILE = "report.md"
HTML_FILE = "report.html"
MAX_SAMPLES_BYTES = 1 << 30


def write_report(report: Report, directory: Path) -> None:
    """Writes `report.json`, `samples.json.zst`, `junit.xml`, `report.md` and `report.html`.

    Each file is complete or not there; the one that machines gate on comes first. Files of an earlier run are replaced.

    Raises:
        InputError: the directory cannot be written.
    """
    document = document_of(report)
    samples = samples_document_of(report)
    files: tuple[tuple[str, Callable[[], bytes]], ...] = (
        (REPORT_FILE, lambda: _json(document)),
        (SAMPLES_FILE, lambda: zstandard.ZstdCompressor().compress(_json(samples))),
        (JUNIT_FILE, lambda: junit_xml(document).encode()),
        (MARKDOWN_FILE, lambda: markdown_page(document).encode()),
        (HTML_FILE, lambda: html_page(document, samples).encode()),
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files:
            write_atomic(directory / name, content())
    except OSError as error:
        raise InputError(
            f"the report cannot be written: {error.strerror}",
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


def load_samples(directory: Path) -> tuple[Sample, ...]:
    """The raw samples of a report directory.

    Raises:
        InputError: they are not there, or no samples of this schema.
    """
    file = directory / SAMPLES_FILE
    try:
        content = zstandard.ZstdDecompressor().decompress(file.read_bytes(), max_output_size=MAX_SAMPLES_BYTES)
        document = json.loads(content)
        if document["schema"] != SAMPLES_SCHEMA:
            raise _unusable(file, f"its schema is {document['schema']!r}")
        return tuple(sample_of(value) for value in document["samples"])
    except (OSError, ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise _unusable(file, f"the samples cannot be read: {error}") from error


def recompute(directory: Path) -> Comparison | None:
    """The comparison of a report directory, computed again from its raw samples; None when it has none.

    Raises:
        InputError: the report or its samples are not usable.
    """
    comparison = load_report(directory)["comparison"]
    if comparison is None:
        return None
    try:
        plan = BenchPlan(**{**comparison["plan"], "arrivals": Arrivals(comparison["plan"]["arrivals"])})
        order = [tuple(names) for names in comparison["order"]]
        names = [path["path"] for path in comparison["paths"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(directory / REPORT_FILE, f"the comparison cannot be read: {error}") from error
    return analyse(load_samples(directory), plan, order, names=names)


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _unusable(file: Path, what: str) -> InputError:
    return InputError(what, where=str(file), expected=f"a report of schema {SCHEMA}", next_command="servepath e2e")
