"""What preflight finds, as the checks of a report: there, missing with the command that fixes it, or not to be told."""

from __future__ import annotations

from servepath.evidence import CheckResult, Verdict

SUBJECT = "cluster"


def there(name: str, expected: str, seen: str) -> CheckResult:
    """Say that something is there."""
    return CheckResult(name, SUBJECT, Verdict.PASS, expected, seen, 0.0)


def missing(name: str, expected: str, seen: str, fix: str) -> CheckResult:
    """Say that something is missing, and the command that fixes it."""
    return CheckResult(name, SUBJECT, Verdict.FAIL, expected, seen, 0.0, fix)


def untold(name: str, expected: str, seen: str, fix: str = "") -> CheckResult:
    """Say that something cannot be told from here, and the command that would show it."""
    return CheckResult(name, SUBJECT, Verdict.SKIP, expected, seen, 0.0, fix)


def judged(name: str, expected: str, seen: str, fix: str, *, is_there: bool) -> CheckResult:
    """Say one or the other."""
    return there(name, expected, seen) if is_there else missing(name, expected, seen, fix)
