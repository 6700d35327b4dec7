"""What preflight finds, as the checks of a report: there, missing with the command that fixes it, or not to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.errors import PromotionRefusedError
from servepath.evidence import CheckResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def missing_of(results: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """Give what is missing."""
    return tuple(result for result in results if result.verdict is Verdict.FAIL)


def refuse_missing(results: Sequence[CheckResult]) -> None:
    """Refuse to promote to a cluster where something is missing.

    Raises:
        PromotionRefusedError: with everything that is missing, and the command that fixes each.
    """
    absent = missing_of(results)
    if not absent:
        return
    lines = [f"{one.name}: expected {one.expected}, found {one.seen}\n    fix: {one.next_command}" for one in absent]
    raise PromotionRefusedError(
        f"{len(absent)} {'thing is' if len(absent) == 1 else 'things are'} missing; nothing was changed\n  "
        + "\n  ".join(lines),
        where="preflight",
        next_command=absent[0].next_command,
    )
