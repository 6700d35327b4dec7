"""The traps that docs/interop.md lists: each names a test, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAMED = re.findall(r"\| `(tests/\S+\.py)::(\w+)` \|", (ROOT / "docs" / "interop.md").read_text())


def test_every_row_of_the_table_names_a_test() -> None:
    table = (ROOT / "docs" / "interop.md").read_text().partition("| trap | test |")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert len(rows) == len(NAMED) > 9


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_of_a_trap_is_there(file: str, name: str) -> None:
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
