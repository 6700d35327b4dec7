"""Computes the numbers of a report again from its raw samples, and says where one differs.

Which numbers: the whole comparison, the objectives, the whole sweep, the lifecycle and the canary. What the samples
cannot tell is taken from the report: the plan, the limits, the offered rates, the price of an hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.bench.analysis import analyse
from servepath.bench.capacity import Load, SweepDesign
from servepath.bench.instrument import Instrument, Overheads, point_of
from servepath.bench.knee import analyse_sweep
from servepath.bench.model import Arrivals, BenchPlan
from servepath.bench.slo import Slo, evaluate
from servepath.errors import InputError
from servepath.lifecycle.load import downtime_s
from servepath.lifecycle.model import Lifecycle, Rollout
from servepath.lifecycle.summary import measurement
from servepath.report.canary import client_values
from servepath.report.document import plain
from servepath.report.measured import comparison_values, instrument_values, lifecycle_values, slo_values, sweep_values
from servepath.report.write import REPORT_FILE, SAMPLES_FILE, load_report, load_samples, samples_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from servepath.bench.capacity import Sweep
    from servepath.bench.model import Comparison, Sample
    from servepath.report.samples import KeptSamples

# Sums of floats differ in their last digits between processors.
RELATIVE_TOLERANCE = 1e-9
OBJECTIVES = ("ttft_p95_s", "itl_p95_s", "e2e_p95_s", "error_rate")


@dataclass(frozen=True, slots=True)
class Difference:
    """A value of a report that does not follow from its samples: where it is, what is written, what follows."""

    where: str
    written: Any
    computed: Any


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What came of computing a report again.

    Attributes:
        request_count: requests that the numbers were computed from.
        value_count: values that were compared.
        differences: those that differ.
    """

    request_count: int
    value_count: int
    differences: tuple[Difference, ...]


def recompute(directory: Path) -> Recomputed:
    """Computes every number of a report directory that derives from samples again.

    Raises:
        InputError: the report or its samples are not usable.
    """
    document, kept = load_report(directory), load_samples(directory)
    try:
        again = plain(computed_values(document, kept, (directory / SAMPLES_FILE).read_bytes()))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"the report cannot be computed again: {type(error).__name__}: {error}",
            where=str(directory / REPORT_FILE),
            expected="a report and the samples of the same run",
            next_command="servepath report --help",
        ) from error
    written = {name: document[name] for name in again}
    return Recomputed(
        request_count=kept.request_count,
        value_count=sum(1 for _ in _leaves(again)),
        differences=tuple(differences(written, again)),
    )


def computed_values(document: dict[str, Any], kept: KeptSamples, packed: bytes) -> dict[str, Any]:
    """The top-level values of a report document that follow from its samples."""
    values: dict[str, Any] = {"samples": samples_values(kept, packed)}
    if document["comparison"]:
        comparison = _comparison(document["comparison"], kept.comparison)
        values["comparison"] = comparison_values(comparison)
        limits = {one["objective"]: one["limit"] for one in document["slo"]}
        judged = {one["path"] for one in document["slo"]}  # of a promotion the candidate alone
        objectives = Slo(**{name: limits.get(name) for name in OBJECTIVES})
        results = [one for one in evaluate(comparison, objectives) if one.path in judged]
        values["slo"] = slo_values(results, comparison.summaries)
    if document["sweep"]:
        values["sweep"] = sweep_values(_sweep(document["sweep"], kept))
    if document["instrument"]:
        values["instrument"] = instrument_values(_instrument(document["instrument"], kept))
    if document["lifecycle"]:
        values["lifecycle"] = lifecycle_values(_lifecycle(document["lifecycle"], kept))
    if document.get("canary"):
        values["canary"] = _canary(document["canary"], kept)
    return values


def differences(written: Any, again: Any, where: str = "") -> Iterator[Difference]:
    """Every place at which two JSON values differ, floats by more than the last digits."""
    if isinstance(written, dict) and isinstance(again, dict):
        for key in sorted(written.keys() | again.keys()):
            yield from differences(written.get(key), again.get(key), f"{where}.{key}" if where else key)
    elif isinstance(written, list) and isinstance(again, list) and len(written) == len(again):
        for number, (one, other) in enumerate(zip(written, again, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif not _same(written, again):
        yield Difference(where, written, again)


def _same(written: Any, again: Any) -> bool:
    if isinstance(written, float) and isinstance(again, (int, float)) and not isinstance(again, bool):
        return math.isclose(written, again, rel_tol=RELATIVE_TOLERANCE, abs_tol=0.0)
    return bool(written == again) and isinstance(written, bool) == isinstance(again, bool)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _canary(written: dict[str, Any], kept: KeptSamples) -> dict[str, Any]:
    """The canary with what its clients saw and the comparison of each step computed again."""
    steps = []
    for step, samples in zip(written["steps"], kept.canary_steps, strict=True):
        met = [one for one in kept.canary if step["began_s"] <= one.sent_s < step["ended_s"]]
        client = {"request_count": len(met), "failed_count": sum(bool(one.error) for one in met)}
        again = _comparison(step["comparison"], samples) if step["comparison"] else None
        steps.append({**step, "client": client, "comparison": comparison_values(again) if again else None})
    return {**written, "client": client_values(kept.canary), "steps": steps}


def _comparison(written: dict[str, Any], samples: Sequence[Sample]) -> Comparison:
    order = [tuple(names) for names in written["order"]]
    names = [path["path"] for path in written["paths"]]
    return analyse(samples, _plan(written["plan"]), order, names=names, stopped=written["stopped"])


def _plan(written: dict[str, Any]) -> BenchPlan:
    return BenchPlan(**{**written, "arrivals": Arrivals(written["arrivals"])})


def _sweep(written: dict[str, Any], kept: KeptSamples) -> Sweep:
    loads = [
        Load(
            path=one["path"],
            rate_per_s=one["rate_per_s"],
            block=one["block"],
            waiting=None if one["waiting_requests"] is None else tuple(one["waiting_requests"]),
        )
        for one in written["points"]
    ]
    design = SweepDesign(**{**written["design"], "rates_per_s": tuple(written["design"]["rates_per_s"])})
    return analyse_sweep(
        kept.sweep, loads, Slo(**written["slo"]), _plan(written["plan"]), design, stopped=written["stopped"]
    )


def _instrument(written: dict[str, Any], kept: KeptSamples) -> Instrument:
    return Instrument(
        tuple(
            point_of(
                one["streams"],
                Overheads(added.ttft_s, added.itl_s, added.e2e_s, one["cpu_s"], one["wall_s"], one["token_count"]),
            )
            for one, added in zip(written["points"], kept.instrument, strict=True)
        )
    )


def _lifecycle(written: dict[str, Any], kept: KeptSamples) -> Lifecycle:
    return Lifecycle(
        measurements=tuple(
            measurement(one["name"], one["subject"], one["unit"], tuple(one["samples"]), one["how"])
            for one in written["measurements"]
        ),
        rollouts=tuple(
            Rollout(
                path=one["path"],
                strategy=one["strategy"],
                request_count=len(samples),
                failed_count=sum(not answered for _, answered in samples),
                downtime_s=downtime_s(samples),
                duration_s=one["duration_s"],
                samples=samples,
            )
            for one, samples in zip(written["rollouts"], kept.rollouts, strict=True)
        ),
        skipped=tuple(written["skipped"]),
    )
