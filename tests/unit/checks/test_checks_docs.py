"""docs/checks.md lists the checks that run, each once."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from servepath.checks import registry

DOCS = Path(__file__).parents[3] / "docs" / "checks.md"
CHECKS = [
    check
    for checks in (
        registry.CLUSTER_CHECKS,
        registry.PATH_CHECKS,
        registry.RAW_CHECKS,
        registry.KSERVE_CHECKS,
        registry.PAIR_CHECKS,
    )
    for check in checks
]


def test_the_documented_checks_are_those_that_run() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(check.__name__ for check in CHECKS)


def test_every_check_says_why_it_exists() -> None:
    assert [check.__name__ for check in CHECKS if "\nWhy: " not in (inspect.getdoc(check) or "")] == []
