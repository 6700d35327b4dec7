"""A kubelet's summary -> what the control plane uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servepath.lifecycle.footprint import Meter, Usage, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def pod(namespace: str, name: str, *containers: tuple[int, float]) -> dict[str, Any]:
    return {
        "podRef": {"namespace": namespace, "name": name},
        "containers": [
            {"memory": {"workingSetBytes": size}, "cpu": {"usageCoreNanoSeconds": int(cpu_s * 1e9)}}
            for size, cpu_s in containers
        ],
    }


def test_pods_of_the_control_plane_are_named_after_their_deployment() -> None:
    summary = {
        "pods": [
            pod("kserve", "kserve-controller-manager-7cdccdb5b4-js6bz", (50, 1.5), (10, 0.5)),
            pod("envoy-gateway-system", "envoy-kserve-kserve-ingress-gateway-deaaa49b-65b9f8564f-6qjd2", (20, 2.0)),
            pod("servepath", "model-raw-7cdccdb5b-js6bz", (3000, 58.0)),
            {"podRef": {"namespace": "kserve", "name": "not-started"}},
        ]
    }
    found = dict(usage_of(summary, {"kserve", "envoy-gateway-system"}))
    assert found == {
        "kserve/kserve-controller-manager": Usage(60, 2.0),
        "envoy-gateway-system/envoy-kserve-kserve-ingress-gateway-deaaa49b": Usage(20, 2.0),
        "kserve/not-started": Usage(0, 0.0),
    }
    assert dict(usage_of({}, {"kserve"})) == {}


async def metered(readings: list[dict[str, Usage]]) -> Meter:
    rest = iter(readings)

    async def footprint() -> Mapping[str, Usage]:
        return next(rest)

    meter = Meter(footprint)
    for _ in readings:
        await meter.read()
    return meter


@pytest.mark.anyio
async def test_memory_is_the_median_and_cpu_is_time_over_time() -> None:
    meter = await metered([{"a": Usage(10, 1.0)}, {"a": Usage(30, 1.5)}, {"a": Usage(20, 1.5), "b": Usage(5, 0.0)}])
    meter.readings = [(10.0 * number, taken) for number, (_, taken) in enumerate(meter.readings)]
    memory, cpu = meter.measurements("how")
    assert (memory.name, memory.subject, memory.unit, memory.value) == ("control_plane_memory", "a", "bytes", 20)
    assert memory.samples == (10, 30, 20)
    assert (cpu.name, cpu.unit, cpu.samples) == ("control_plane_cpu", "cores", (0.05, 0.0))


@pytest.mark.anyio
async def test_nothing_found_is_no_measurement() -> None:
    assert (await metered([])).measurements("how") == ()
    assert (await metered([{}, {}])).measurements("how") == ()


@pytest.mark.anyio
async def test_a_program_that_started_anew_uses_no_negative_time() -> None:
    meter = await metered([{"a": Usage(10, 9.0)}, {"a": Usage(10, 0.1)}])
    assert meter.measurements("how")[1].samples == (0.0,)
