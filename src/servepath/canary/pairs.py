"""The paired measurement of a step: blocks in which both slots are asked one after the other, in random order."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from servepath.bench.analysis import analyse
from servepath.bench.growth import MAX_BLOCKS
from servepath.bench.model import MIN_BLOCKS
from servepath.bench.paths import load_path, make_prompts, open_paths, warm_up
from servepath.bench.schedule import arrival_times_s, block_order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from servepath.bench.model import BenchPlan, Comparison, Sample
    from servepath.bench.paths import OpenPath
    from servepath.bench.prompts import PromptMaker
    from servepath.serving.model import Endpoint

STABLE = "stable"
CANARY = "canary"
NAMES = (STABLE, CANARY)


class PairedLoad:
    """Blocks of both slots, taken for as long as a step is held.

    Each request names its slot in a header and goes through the same gateway, hostname and route as a client's.
    """

    def __init__(self, paths: Mapping[str, OpenPath], prompts: PromptMaker, plan: BenchPlan) -> None:
        self._paths = paths
        self._prompts = prompts
        self._plan = plan
        self._order = block_order(NAMES, replace(plan, blocks=MAX_BLOCKS))
        self._block = 0
        self._samples: list[Sample] = []

    async def hold(self, seconds: float, is_hopeless: Callable[[Sequence[Sample]], bool]) -> Comparison:
        """Take blocks for so long, and at least as many as an interval needs; the next hold adds to them.

        Args:
            seconds: how long.
            is_hopeless: looks at the requests of the step after each block, and ends the hold early.

        Returns:
            The comparison of all blocks of the step.
        """
        end_s = anyio.current_time() + seconds
        while self._block < len(self._order):
            times_s = arrival_times_s(self._plan, self._block)
            for name in self._order[self._block]:
                self._samples += await load_path(self._paths[name], self._block, times_s, self._prompts, self._plan)
            self._block += 1
            if is_hopeless(self._samples):
                return self._comparison("a finding that no further request could change")
            if self._block >= MIN_BLOCKS and anyio.current_time() >= end_s:
                break
        return self._comparison("the step was held for its time")

    def _comparison(self, stopped: str) -> Comparison:
        return analyse(self._samples, self._plan, self._order[: self._block], names=NAMES, stopped=stopped)


@asynccontextmanager
async def paired_load(stable: Endpoint, canary: Endpoint, plan: BenchPlan) -> AsyncIterator[PairedLoad]:
    """Open both slots for the measurement of one step, and warm them up.

    Raises:
        ClusterError: the stable slot answered no calibration request, or a slot none of its warm-up requests.
    """
    async with open_paths({STABLE: stable, CANARY: canary}, plan) as paths:
        prompts = await make_prompts(paths[STABLE], plan)
        for path in paths.values():
            await warm_up(path, prompts, plan)
        yield PairedLoad(paths, prompts, plan)
