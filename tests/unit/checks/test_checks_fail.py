"""Every check fails when it should, and says what it saw and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.checks import registry
from servepath.checks.run import plan, run_one
from servepath.evidence import Verdict
from tests.unit.checks.broken import BROKEN, Broken
from tests.unit.checks.world import KEY, World, running

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.anyio
@pytest.mark.parametrize("broken", BROKEN, ids=str)
async def test_check_fails_in_a_broken_world(broken: Broken, tmp_path: Path) -> None:
    world = World()
    broken.damage(world)
    async with running(world, tmp_path) as tools:
        planned = next(one for one in plan(tools) if (one.name, one.subject) == (broken.name, broken.subject))
        result = await run_one(planned, tools.context)
    assert result.verdict is Verdict.FAIL
    assert broken.seen in result.seen
    assert result.expected
    assert result.next_command.startswith(("kubectl ", "curl "))
    assert KEY not in result.next_command


def test_every_check_of_the_registry_is_broken_once() -> None:
    registered = {
        check.__name__
        for checks in (
            registry.CLUSTER_CHECKS,
            registry.PATH_CHECKS,
            registry.RAW_CHECKS,
            registry.KSERVE_CHECKS,
            registry.PAIR_CHECKS,
        )
        for check in checks
    }
    assert registered == {broken.name for broken in BROKEN}
