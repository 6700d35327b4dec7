"""What a lifecycle run makes of its samples, and what it says that it did not measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servepath.cluster.model import Cluster
from servepath.errors import ClusterError
from servepath.lifecycle import measure
from servepath.lifecycle.footprint import Meter, Usage
from servepath.lifecycle.measure import COLD, COPY, INTO_NODE, PULL, START, STOP, WARM, LifecyclePlan
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import CPU_SMALL

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.anyio


def run_with(footprint: Mapping[str, Usage] | ClusterError) -> measure._Run:
    async def read() -> Mapping[str, Usage]:
        if isinstance(footprint, ClusterError):
            raise footprint
        return footprint

    image = f"r.test/m@sha256:{'a' * 64}"
    return measure._Run(
        Cluster(Path("kubeconfig"), "r.test", "http://g.test"),
        ServingSpec("demo", "smol", "smol", image, image, CPU_SMALL),
        LifecyclePlan(),
        {},
        Meter(read),
        lambda _: None,
    )


async def test_every_name_says_how_it_was_measured_and_the_starts_come_first() -> None:
    run = run_with({"kserve/manager": Usage(100, 1.0)})
    for subject in (PULL, COPY):
        run._keep(INTO_NODE, subject, 1.0)
    for name in (STOP, START, WARM, COLD):
        for path in ServingPath:
            run._keep(name, path, 3.0)
            run._keep(name, path, 1.0)
            run._keep(name, path, 2.0)
    await run._begin("one")
    result = run.result()
    times = [one for one in result.measurements if one.unit == "s"]
    assert list(dict.fromkeys(one.name for one in times)) == [COLD, WARM, START, STOP, INTO_NODE]
    assert all(one.how for one in result.measurements)
    stop = next(one for one in times if (one.name, one.subject) == (STOP, "kserve"))
    assert (stop.value, stop.samples) == (2.0, (3.0, 1.0, 2.0))
    assert [(one.subject, one.value) for one in result.measurements if one.unit == "bytes"] == [("kserve/manager", 100)]
    assert result.skipped == ()


async def test_a_control_plane_that_cannot_be_read_is_said_once_and_ends_nothing() -> None:
    run = run_with(ClusterError("nodes/proxy is forbidden"))
    await run._begin("one")
    await run._begin("two")
    skipped = run.result().skipped
    assert skipped[0] == "memory and CPU of the control plane: nodes/proxy is forbidden"
    assert len(skipped) == 2
    assert "none of its pods was found" in skipped[1]


def test_both_paths_are_updated_with_both_strategies_by_default() -> None:
    assert set(LifecyclePlan().rollouts) == {
        (path, strategy) for path in ServingPath for strategy in ("Recreate", "RollingUpdate")
    }
