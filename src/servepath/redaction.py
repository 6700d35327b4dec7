"""Taking secrets out of what is shown or kept: the values that are known, and what has the looks of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

REDACTED = "[redacted]"
# Shorter strings are no secrets, and replacing them would take ordinary words apart.
MIN_SECRET_CHARS = 6
# What is a secret by the looks of it, since a run that stopped early may not know its own keys.
LOOKS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (
        re.compile(
            r"(?i)\b([\w-]*(?:api[_-]?key|token|passw(?:or)?d|secret)s?)(['\"]?\s*[=:]\s*|\s+)(['\"\[]*)[^\s'\",\]]{6,}"
        ),
        rf"\1\2\3{REDACTED}",
    ),
    (re.compile(r"\b(?:hf_|sk-|ghp_|glpat-)[A-Za-z0-9_-]{8,}"), REDACTED),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), REDACTED),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), REDACTED),
)

Value = TypeVar("Value")


def known(values: Iterable[str]) -> tuple[str, ...]:
    """Give the values that are long enough to be secrets, longest first: one may be a part of another."""
    return tuple(sorted({one for one in values if len(one) >= MIN_SECRET_CHARS}, key=lambda one: (-len(one), one)))


def redact(value: Value, secrets: Iterable[str]) -> Value:
    """Give a text, or plain JSON values, with every secret in any string, keys included, replaced."""
    redacted: Value = _redact(value, known(secrets))
    return redacted


def redact_looks(text: str) -> str:
    """Give a text with everything replaced that looks like a secret."""
    for pattern, instead in LOOKS:
        text = pattern.sub(instead, text)
    return text


def _redact(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, dict):
        return {_redact(key, secrets): _redact(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact(item, secrets) for item in value]
    return value
