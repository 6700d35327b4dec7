"""A canary in the report: its values, why it is no pass, and its words in Markdown."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from servepath.bench.stats import percentile
from servepath.canary.model import Outcome
from servepath.report.format import METRIC_NAMES, duration, latency, percent, percent_interval, short_digest
from servepath.report.markdown_text import cell, table
from servepath.report.measured import comparison_values, slo_values
from servepath.serving.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from servepath.canary.model import CanaryResult, ClientRequest, StepVerdict

_SHOWN_ERRORS = 5


def canary_values(canary: CanaryResult) -> dict[str, Any]:
    """The canary as plain values. The single requests are not here: they are in `samples.json.zst`."""
    plan = canary.plan
    return {
        "id": canary.id,
        "outcome": canary.outcome,
        "cause": canary.cause,
        "resumed": canary.resumed,
        "host": canary.host,
        "stable_digest": canary.stable_digest,
        "canary_digest": canary.canary_digest,
        "canary_slot": canary.canary_slot,
        "duration_s": canary.duration_s,
        "plan": {
            "steps_percent": plan.steps_percent,
            "hold_s": plan.hold_s,
            "max_extensions": plan.max_extensions,
            "max_slowdown_percent": plan.max_slowdown_percent,
            "max_error_rate": plan.max_error_rate,
            "rate_per_s": plan.client.rate_per_s,
            "output_tokens": plan.client.output_tokens,
            "timeout_s": plan.client.timeout_s,
        },
        "client": client_values(canary.requests),
        "weights": [asdict(change) for change in canary.weights],
        "steps": [_step(step, canary.requests) for step in canary.steps],
    }


def client_values(requests: Sequence[ClientRequest]) -> dict[str, Any]:
    """What the constant load through the stable hostname saw, in all and by the slot that answered."""
    errors = Counter(request.error for request in requests if request.error)
    return {
        "request_count": len(requests),
        "failed_count": sum(errors.values()),
        "errors": [{"error": error, "failed_count": count} for error, count in errors.most_common(_SHOWN_ERRORS)],
        "slots": [
            _slot(slot, [request for request in requests if request.slot is slot])
            for slot in Slot
            if any(request.slot is slot for request in requests)
        ],
    }


def canary_failures(canary: CanaryResult) -> Iterable[str]:
    """Why a canary is no pass: it was rolled back, or it cost a client a request."""
    if canary.outcome is Outcome.ROLLED_BACK:
        yield f"the canary was rolled back: {canary.cause}"
    if canary.failed_count:
        yield f"{canary.failed_count} of {len(canary.requests)} client requests failed while the canary ran"


def canary_line(canary: dict[str, Any]) -> str:
    """The canary in one line."""
    client = canary["client"]
    kept = "no client request failed" if not client["failed_count"] else f"{client['failed_count']} requests failed"
    shares = ", ".join(f"{change['canary_percent']}%" for change in canary["weights"]) or "no traffic shifted"
    digest = short_digest(canary["canary_digest"])
    return f"the canary {digest} was {canary['outcome']} ({shares}); {kept} of {client['request_count']}"


def canary_markdown(canary: dict[str, Any]) -> str:
    """The section of the Markdown page."""
    steps = [
        [
            f"{step['weight_percent']}%",
            step["decision"],
            duration(step["ended_s"] - step["began_s"]),
            f"{step['client']['failed_count']} of {step['client']['request_count']}",
            "; ".join(step["reasons"]),
        ]
        for step in canary["steps"]
    ]
    slots = [
        [
            slot["slot"],
            f"{slot['failed_count']} of {slot['request_count']}",
            *(latency(slot[key]) if slot[key] is not None else "none" for key in ("ttft_p50_s", "ttft_p95_s")),
        ]
        for slot in canary["client"]["slots"]
    ]
    line = canary_line(canary)
    parts = [
        "### The canary",
        f"{cell(line[:1].upper() + line[1:])}." + (f" Cause: {cell(canary['cause'])}" if canary["cause"] else ""),
        table(["share", "decision", "held", "failed client requests", "why"], steps) if steps else "",
        table(["slot", "failed client requests", "TTFT p50", "TTFT p95"], slots) if slots else "",
        "\n".join(f"- {one['failed_count']} x {cell(one['error'])}" for one in canary["client"]["errors"]),
    ]
    return "\n\n".join(part for part in parts if part)


def ratio_words(comparison: dict[str, Any]) -> list[str]:
    """The medians of a step's comparison, such as `TTFT +3.1% (-1.0% to +7.4%)`."""
    return [
        f"{METRIC_NAMES[ratio['metric']]} {percent(ratio['ratio'])} "
        f"({percent_interval(ratio['ratio_low'], ratio['ratio_high'])})"
        for ratio in comparison["ratios"]
        if ratio["statistic"] == "median"
    ]


def _step(step: StepVerdict, requests: Sequence[ClientRequest]) -> dict[str, Any]:
    met = [request for request in requests if step.began_s <= request.sent_s < step.ended_s]
    return {
        "number": step.number,
        "weight_percent": step.weight_percent,
        "decision": step.decision,
        "reasons": step.reasons,
        "extensions": step.extensions,
        "began_s": step.began_s,
        "ended_s": step.ended_s,
        "client": {"request_count": len(met), "failed_count": sum(bool(request.error) for request in met)},
        "comparison": comparison_values(step.comparison) if step.comparison else None,
        "slo": slo_values(step.slo, step.comparison.summaries if step.comparison else ()),
    }


def _slot(slot: Slot, requests: Sequence[ClientRequest]) -> dict[str, Any]:
    ttft_s = [request.ttft_s for request in requests if request.ttft_s is not None and not request.error]
    return {
        "slot": slot,
        "request_count": len(requests),
        "failed_count": sum(bool(request.error) for request in requests),
        "ttft_p50_s": percentile(ttft_s, 50) if ttft_s else None,
        "ttft_p95_s": percentile(ttft_s, 95) if ttft_s else None,
    }
