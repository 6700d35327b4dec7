"""Records in a cluster: numbered, bounded, and never written over by two."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.errors import ClusterError
from servepath.promotion.history import (
    LIMIT,
    create_record,
    last_succeeded,
    prune,
    read_history,
    record_name,
    save_record,
)
from servepath.promotion.record import Stage, State, advance
from tests.unit.promotion.examples import NAMESPACE, RELEASE, record

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from tests.unit.promotion.api_server import World

pytestmark = pytest.mark.anyio


async def test_a_record_is_a_labelled_config_map_with_what_was_there(client: AsyncClient, world: World) -> None:
    kept = await create_record(client, record(3), {"before": [{"content": {"kind": "Service"}}]})
    (obj,) = (obj for (plural, _, _), obj in world.objects.items() if plural == "configmaps")
    assert obj["metadata"]["name"] == "smol-promotion-000003" == record_name(RELEASE, 3)
    assert obj["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "servepath",
        "app.kubernetes.io/part-of": "servepath",
        "servepath.dev/release": "smol",
        "servepath.dev/promotion": "3",
    }
    kept = await save_record(client, kept, advance(kept.record, Stage.COPY), report={"verdict": "pass"})
    (read,) = await read_history(client, NAMESPACE, RELEASE)
    assert read == kept
    assert read.record.stage is Stage.COPY
    assert read.attached == {"before": [{"content": {"kind": "Service"}}], "report": {"verdict": "pass"}}
    assert await read_history(client, NAMESPACE, "another") == ()


async def test_a_number_is_given_once_and_an_old_version_is_not_written(client: AsyncClient) -> None:
    first = await create_record(client, record(1), {})
    with pytest.raises(ClusterError, match="Conflict"):
        await create_record(client, record(1), {})
    await save_record(client, first, replace(first.record, who="bob"))
    with pytest.raises(ClusterError, match="another process has changed it") as caught:
        await save_record(client, first, replace(first.record, who="carol"))
    assert "servepath history" in caught.value.next_command
    (read,) = await read_history(client, NAMESPACE, RELEASE)
    assert read.record.who == "bob"


async def test_the_oldest_go_but_never_what_serves_or_is_not_over(client: AsyncClient) -> None:
    states = [State.SUCCEEDED, State.RUNNING] + [State.ROLLED_BACK] * (LIMIT + 3)
    for number, state in enumerate(states, 1):
        await create_record(client, record(number, state), {})
    assert await prune(client, NAMESPACE, RELEASE) == (3, 4, 5, 6, 7)
    history = await read_history(client, NAMESPACE, RELEASE)
    assert [one.record.number for one in history] == [1, 2, *range(8, LIMIT + 6)]
    assert len(history) == LIMIT
    serving = last_succeeded(history)
    assert serving is not None
    assert serving.record.number == 1
    assert await prune(client, NAMESPACE, RELEASE) == ()


async def test_what_does_not_fit_into_a_config_map_is_refused(client: AsyncClient, world: World) -> None:
    with pytest.raises(ClusterError, match="expected at most 900000"):
        await create_record(client, record(), {"before": os.urandom(1_000_000).hex()})
    assert world.writes == 0


async def test_a_config_map_that_is_no_record_is_named(client: AsyncClient, world: World) -> None:
    await create_record(client, record(), {})
    world.objects["configmaps", NAMESPACE, "smol-promotion-000001"]["data"] = {"record.json": "{"}
    with pytest.raises(ClusterError, match="not a promotion record") as caught:
        await read_history(client, NAMESPACE, RELEASE)
    assert caught.value.where == "ConfigMap serving/smol-promotion-000001"
    assert "get configmap smol-promotion-000001" in caught.value.next_command
