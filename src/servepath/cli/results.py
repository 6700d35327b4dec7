"""What a command gives: fields for a person, or JSON for a machine, on standard output."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import PurePath
from typing import Any

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses as objects, without the fields that are never shown (`repr=False`).

    JSON has no infinity and no NaN: they are null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, PurePath):
        return str(value)
    return value


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """A result that is text already, on standard output."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def print_fields(title: str, fields: dict[str, Any]) -> None:
    """A result for a person: a title, bold on a terminal, and aligned names and values, on standard output."""
    width = max(len(name) for name in fields)
    lines = [f"{_BOLD}{title}{_PLAIN}" if sys.stdout.isatty() else title]
    lines += [f"  {name:<{width}}  {value}" for name, value in fields.items()]
    sys.stdout.write("\n".join(lines) + "\n")
