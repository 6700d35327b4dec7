"""Example measurements besides the comparison: a sweep, the instrument, a lifecycle. Drawn, not measured."""

from __future__ import annotations

import numpy as np

from servepath.bench.capacity import Load, Sweep, SweepDesign
from servepath.bench.instrument import Instrument, Overheads, point_of
from servepath.bench.knee import analyse_sweep
from servepath.bench.model import BenchPlan, Sample
from servepath.bench.slo import Slo
from servepath.lifecycle.load import downtime_s
from servepath.lifecycle.model import Lifecycle, Rollout
from servepath.lifecycle.summary import measurement

RATES_PER_S = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
CAPACITY_PER_S = {"raw": 9.6, "kserve": 9.1}


def ns(value: float) -> float:
    """A time as the client's clock gives it."""
    return round(value, 9)


def sweep_samples(path: str, rate_per_s: float, block: int) -> tuple[Sample, ...]:
    """A single server with a queue: its latencies grow without bound past its capacity."""
    rng = np.random.default_rng([7, block])
    samples = []
    free_s = 0.0
    for index in range(40):
        intended_s = index / rate_per_s
        start_s = max(intended_s, free_s)
        free_s = start_s + float(rng.exponential(1 / CAPACITY_PER_S[path]))
        first_s = start_s + 0.045 + float(rng.exponential(0.01))
        gap_s = 0.0078 * (1 + 0.55 * min(rate_per_s / CAPACITY_PER_S[path], 1.6))
        times_s = first_s + np.concatenate([[0.0], np.cumsum(gap_s * rng.lognormal(0, 0.15, 63))])
        samples.append(
            Sample(
                path=path,
                block=block,
                index=index,
                intended_s=ns(intended_s),
                sent_s=ns(intended_s + float(rng.exponential(0.0004))),
                token_times_s=tuple(ns(float(time_s)) for time_s in times_s),
                end_s=ns(float(times_s[-1]) + 0.0005),
                prompt_tokens=256,
                completion_tokens=64,
            )
        )
    return tuple(samples)


def example_sweep() -> Sweep:
    samples: list[Sample] = []
    loads = []
    for number, rate_per_s in enumerate(RATES_PER_S):
        for place, path in enumerate(CAPACITY_PER_S):
            block = len(CAPACITY_PER_S) * number + place
            samples += sweep_samples(path, rate_per_s, block)
            late = max(0.0, round(rate_per_s - CAPACITY_PER_S[path]))
            loads.append(Load(path, rate_per_s, block, tuple(late * look for look in range(8))))
    design = SweepDesign(rates_per_s=RATES_PER_S, min_requests=40, usd_per_hour=3.6)
    stopped = "raw: the knee is known; kserve: the knee is known"
    return analyse_sweep(samples, loads, Slo(), BenchPlan(prompt_tokens=256, output_tokens=64), design, stopped=stopped)


def example_instrument() -> Instrument:
    points = []
    for streams, requests, ttft_s, gap_s in ((1, 40, 0.0003, 4e-5), (10, 90, 0.0004, 9e-5), (100, 160, 0.001, 4e-4)):
        rng = np.random.default_rng(streams)
        first = [ns(float(value)) for value in ttft_s * rng.lognormal(0, 0.4, requests)]
        gaps = [ns(float(value)) for value in gap_s * rng.lognormal(0, 0.9, 3 * requests)]
        ends = [ns(value * 1.3) for value in first]
        cpu_s = min(0.9, 0.004 * streams**0.8)
        points.append(point_of(streams, Overheads(tuple(first), tuple(gaps), tuple(ends), cpu_s, 1.5, 95 * streams)))
    return Instrument(tuple(points))


def rollout(path: str, strategy: str, down_from_s: float, down_to_s: float) -> Rollout:
    samples = tuple((ns(0.2 * number), not down_from_s <= 0.2 * number < down_to_s) for number in range(450))
    failed = sum(not answered for _, answered in samples)
    return Rollout(path, strategy, len(samples), failed, downtime_s(samples), 84.2, samples)


def example_lifecycle() -> Lifecycle:
    apply = "from `kubectl apply` to the first token of the first answer"
    metered = "working set of the pods, read from the kubelet every second for a minute"
    return Lifecycle(
        measurements=(
            measurement("start_warm", "raw", "s", (41.2, 40.7, 42.9), apply),
            measurement("start_warm", "kserve", "s", (44.8, 45.3, 44.1), apply),
            measurement("start_cold", "raw", "s", (139.0,), apply + ", the image absent"),
            measurement("start_cold", "kserve", "s", (143.5,), apply + ", the image absent"),
            measurement("stop", "raw", "s", (2.1, 2.2, 2.1), "from the request to the last pod gone"),
            measurement("stop", "kserve", "s", (2.9, 3.1, 2.8), "from the request to the last pod gone"),
            measurement("model_into_node", "modelcar", "s", (3.4, 3.2, 3.3), "pull of the image, layers in parallel"),
            measurement("model_into_node", "pvc", "s", (7.9, 8.4, 8.1), "copy of the files into a claim"),
            measurement("control_plane_memory", "kserve-manager", "bytes", (48.1e6, 48.6e6, 48.8e6), metered),
            measurement("control_plane_memory", "envoy-gateway", "bytes", (71.3e6, 71.3e6, 71.9e6), metered),
            measurement("control_plane_memory", "envoy", "bytes", (33.5e6, 33.6e6, 33.6e6), metered),
            measurement("control_plane_cpu", "kserve-manager", "cores", (0.011, 0.013, 0.012), metered),
        ),
        rollouts=(
            rollout("raw", "Recreate", 1.2, 44.4),
            rollout("kserve", "RollingUpdate", 1e9, 1e9),
        ),
        skipped=("memory of the node's own programs: the kubelet does not say",),
    )
