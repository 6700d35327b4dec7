"""What a report says first: one line, three numbers and a few facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.report.canary import canary_line
from servepath.report.format import METRIC_NAMES, duration, latency, percent, percent_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TILES = 3


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that is to be seen first: what it is of, and how far to trust it."""

    value: str
    label: str
    note: str


def one_line(document: dict[str, Any]) -> str:
    """The answer of the run in one line: why it failed, else what was found."""
    if document["failures"]:
        return _sentence(document["failures"][0])
    if document["comparison"]:
        return _sentence(found(document["comparison"]))
    if document["canary"]:
        return _sentence(canary_line(document["canary"]))
    if document["sweep"]:
        return _sentence("; ".join(knee_words(knee) for knee in document["sweep"]["knees"]))
    if document["lifecycle"] and document["lifecycle"]["rollouts"] and not document["checks"]:
        return _sentence("; ".join(_rollout_words(rollout) for rollout in document["lifecycle"]["rollouts"]))
    return "Everything that was checked holds"


def found(comparison: dict[str, Any]) -> str:
    """What a comparison found, in fewer words than its headline."""
    if not comparison["client"]["kept_schedule"] or not comparison["ratios"]:
        return str(comparison["headline"])
    paths = dict.fromkeys(ratio["path"] for ratio in comparison["ratios"])
    return "; ".join(
        _found_of([ratio for ratio in comparison["ratios"] if ratio["path"] == path], path, comparison["baseline"])
        for path in paths
    )


def tiles(document: dict[str, Any]) -> list[Tile]:
    """The numbers to see first: what the other path costs, else how far each goes, else how long each is away."""
    comparison = document["comparison"]
    candidates: list[Tile] = []
    if comparison and comparison["client"]["kept_schedule"]:
        candidates += _ratio_tiles(comparison["ratios"])
    if not candidates and document["canary"]:
        candidates += _canary_tiles(document["canary"])
    if not candidates and document["sweep"]:
        candidates += [_knee_tile(knee) for knee in document["sweep"]["knees"]]
    if not candidates and document["lifecycle"]:
        candidates += [_rollout_tile(rollout) for rollout in document["lifecycle"]["rollouts"]]
    if not candidates:
        candidates += [
            Tile(duration(one["ready_s"]), f"{one['path']} to its first answer", "from apply, measured once")
            for one in document["deployments"]
        ]
    return candidates[:TILES]


def facts(document: dict[str, Any]) -> list[str]:
    """Short facts of the whole run, each worth a glance."""
    return [fact for fact in (*_run_facts(document), *_measured_facts(document)) if fact]


def knee_words(knee: dict[str, Any]) -> str:
    """How far a path goes, such as `raw meets its objectives up to 4 requests/s`."""
    if knee["rate_per_s"] is None:
        return f"{knee['path']} meets its objectives at no rate that was tried"
    return f"{knee['path']} meets its objectives up to {knee['rate_per_s']:.3g} requests/s"


def total_s(document: dict[str, Any]) -> float:
    """Seconds from the start of a run to the end of its last stage."""
    return max((one["start_s"] + one["duration_s"] for one in document["stages"]), default=0.0)


def _found_of(ratios: Sequence[dict[str, Any]], path: str, baseline: str) -> str:
    different = [
        f"{_quantity(ratio)} {percent(ratio['ratio'])}" for ratio in ratios if ratio["differs"] and _is_median(ratio)
    ] or [f"{_quantity(ratio)} {percent(ratio['ratio'])}" for ratio in ratios if ratio["differs"]]
    if not different:
        least = max(ratio["detectable_percent"] for ratio in ratios if _is_median(ratio))
        return f"no difference found between {path} and {baseline}; {least:.1f}% in a median would have been found"
    same = [METRIC_NAMES[ratio["metric"]] for ratio in ratios if not ratio["differs"] and _is_median(ratio)]
    rest = f"; no difference found in {' or '.join(same)}" if same else ""
    return f"{path} against {baseline}: {', '.join(different)}{rest}"


def _is_median(ratio: dict[str, Any]) -> bool:
    return bool(ratio["statistic"] == "median")


def _quantity(ratio: dict[str, Any]) -> str:
    return METRIC_NAMES[ratio["metric"]] + ("" if _is_median(ratio) else f" {ratio['statistic']}")


def _ratio_tiles(ratios: Sequence[dict[str, Any]]) -> Iterable[Tile]:
    for ratio in ratios:
        if ratio["path"] == ratios[0]["path"] and _is_median(ratio):
            interval = percent_interval(ratio["ratio_low"], ratio["ratio_high"])
            finding = "a difference" if ratio["differs"] else "no difference found"
            yield Tile(
                percent(ratio["ratio"]),
                f"{METRIC_NAMES[ratio['metric']]} of {ratio['path']} against {ratio['baseline']}",
                f"{interval}: {finding}",
            )


def _canary_tiles(canary: dict[str, Any]) -> list[Tile]:
    client, steps = canary["client"], canary["steps"]
    share = max((change["canary_percent"] for change in canary["weights"]), default=0)
    reached = f"{len(steps)} of {len(canary['plan']['steps_percent'])} steps, {duration(canary['duration_s'])}"
    shown = [
        Tile(str(client["failed_count"]), "client requests failed", f"of {client['request_count']} on one hostname"),
        Tile(f"{share}%", f"of the traffic at most, then {canary['outcome']}", reached),
    ]
    compared = [step["comparison"] for step in steps if step["comparison"] and step["comparison"]["ratios"]]
    return [*shown, *(_ratio_tiles(compared[-1]["ratios"]) if compared else ())]


def _knee_tile(knee: dict[str, Any]) -> Tile:
    value = "none" if knee["rate_per_s"] is None else f"{knee['rate_per_s']:.3g}/s"
    cost = knee["cost"]
    note = f"${cost['usd_per_1k_requests']:.3g} per 1000 requests" if cost else f"{knee['request_count']} requests"
    return Tile(value, f"highest rate of {knee['path']} within its objectives", note)


def _rollout_words(rollout: dict[str, Any]) -> str:
    what = f"an update of {rollout['path']} ({rollout['strategy']})"
    if not rollout["failed_count"]:
        return f"{what} fails no request"
    return f"{what} fails {rollout['failed_count']} of {rollout['request_count']} requests"


def _rollout_tile(rollout: dict[str, Any]) -> Tile:
    value = duration(rollout["downtime_s"]) if rollout["failed_count"] else "0 s"
    note = f"{rollout['failed_count']} of {rollout['request_count']} requests failed, {rollout['strategy']}"
    return Tile(value, f"without an answer while {rollout['path']} is updated", note)


def _run_facts(document: dict[str, Any]) -> Iterable[str]:
    checks = document["checks"]
    if checks:
        skipped = sum(check["verdict"] == "skip" for check in checks)
        passed = sum(check["verdict"] == "pass" for check in checks)
        yield f"{passed} of {len(checks) - skipped} checks passed" + (f", {skipped} skipped" if skipped else "")
    if document["stages"]:
        yield f"{duration(total_s(document))} in all"


def _measured_facts(document: dict[str, Any]) -> Iterable[str]:
    comparison, sweep, instrument = document["comparison"], document["sweep"], document["instrument"]
    if comparison:
        failed = sum(path["error_count"] for path in comparison["paths"])
        yield f"{failed} of {comparison['sample_count']} requests failed"
    if document["canary"] and comparison:
        yield canary_line(document["canary"])
    if sweep and comparison:
        yield from (knee_words(knee) for knee in sweep["knees"])
    if instrument and instrument["points"]:
        least = instrument["points"][0]
        yield f"the client itself adds {latency(max(least['ttft_overhead_p50_s'], 0.0))} to TTFT"


def _sentence(words: str) -> str:
    """The words with a first letter as a sentence has it, but the name of a path stays as it is."""
    return words if words.startswith(("kserve", "raw")) else words[:1].upper() + words[1:]
